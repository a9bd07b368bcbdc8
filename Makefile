# make demo: install, then generate images.  make test: install, then test.  make docs: build the documentation.
PYTHON ?= python3
VENV ?= .venv
# make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu installs the CPU build of torch, which is far smaller.
TORCH_INDEX ?=
BIN = $(VENV)/bin
DALLE = $(BIN)/dalle
PIP = $(BIN)/pip install --disable-pip-version-check
# One file of tests after another on every core; two that share cores wait for each other's threads.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

.PHONY: install setup demo test test-slow check check-large parity bench starter docs clean

install: $(VENV)/installed

setup: $(VENV)/installed-dev

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "dalle needs Python 3.11 or later, and \
	$(PYTHON) is $$($(PYTHON) -V 2>&1); name another one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); torch is large, this takes a minute or more"
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch)
	$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --quiet -e '.[dev]'
	@touch $@

# About a minute on two slow cores after the installation.
demo: install
	$(DALLE) sample "avocado chair" --rerank 128 --top 8 --out out/demo --sheet out/demo/sheet.png --overwrite
	$(DALLE) sample "a tiger automobile" "a strawberry teapot" --recipe glide -n 2 --out out/demo/glide \
		--sheet out/demo/glide.png --overwrite
	@echo "open out/demo/sheet.png (DALL-E 1, ranked by CLIP) and out/demo/glide.png (GLIDE)"

test: setup
	$(PYTEST)

# First the tiny recipes by themselves, with all cores: how long they take is part of the test.
test-slow: setup
	$(BIN)/python -m pytest -m slow tests/test_tiny.py
	$(PYTEST) -m slow --ignore tests/test_tiny.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The generated pages (recipes, commands, objects), then the site in out/site.
docs: setup
	$(PIP) --quiet -e '.[dev,docs]'
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict
	@echo "open out/site/index.html"

# Karlo's size, imported and sampled with one stage at a time: 24 GiB of memory, 40 GB of disk for a while.
check-large: setup
	$(BIN)/python -m pytest -m large

# Networks of full size against the packages that implement them today, 12 GiB of memory. open_clip and taming are
# installed without their dependencies, which would bring another build of torch.
parity: setup
	$(PIP) --quiet -e '.[dev,parity]'
	$(PIP) --quiet --no-deps 'open_clip_torch>=3' taming-transformers-rom1504
	$(BIN)/python -m tests.parity.packages
	$(BIN)/python -m pytest tests/parity tests/convert/test_exporting.py

# Against the packages that one would use otherwise; some of them without their dependencies.
bench: setup
	$(PIP) --quiet -e '.[dev,bench]'
	$(PIP) --quiet --no-deps 'open_clip_torch>=3' DALL-E dalle-pytorch axial-positional-embedding \
		rotary-embedding-torch
	$(BIN)/python -m benchmarks

# Trains all starter weights from nothing, in a day or so on two cores; every run can be stopped and resumed. Some of
# the shipped files were continued further: docs/model-cards says which.
starter: setup
	$(DALLE) train-tokenizer --recipe starter --out dalle_cli/starter/tokenizer.json --overwrite
	$(DALLE) train-dvae --recipe starter
	$(DALLE) export checkpoints/dvae-starter --out dalle_cli/starter/dvae.safetensors --overwrite
	$(DALLE) train-clip --recipe starter
	$(DALLE) export checkpoints/clip-starter --out dalle_cli/starter/clip.safetensors --overwrite
	$(DALLE) train-prior --recipe dalle1-starter
	$(DALLE) export checkpoints/prior-dalle1-starter --out dalle_cli/starter/dalle.safetensors --overwrite
	$(DALLE) train-decoder --recipe unclip-decoder-starter
	$(DALLE) export checkpoints/decoder-unclip-decoder-starter --out dalle_cli/starter/decoder.safetensors --overwrite
	$(DALLE) train-decoder --recipe upsampler-starter
	$(DALLE) export checkpoints/decoder-upsampler-starter --out dalle_cli/starter/upsampler.safetensors --overwrite
	$(DALLE) train-clip --recipe noised-starter
	$(DALLE) export checkpoints/clip-noised-starter --out dalle_cli/starter/noised-clip.safetensors --overwrite
	$(DALLE) train-prior --recipe unclip-diffusion-starter
	$(DALLE) export checkpoints/prior-unclip-diffusion-starter --out dalle_cli/starter/prior.safetensors --overwrite
	$(DALLE) train-prior --recipe unclip-ar-starter
	$(DALLE) export checkpoints/prior-unclip-ar-starter --out dalle_cli/starter/prior-ar.safetensors --overwrite

clean:
	rm -rf out .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
