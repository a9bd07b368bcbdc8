# make demo: install, then draw avocado chairs.  make test: install, then test.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DALLE = $(BIN)/dalle
# A file of tests after the other on every core; two that share cores wait for each other's threads.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

.PHONY: setup demo test test-slow check check-large parity bench starter clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: setup
	$(DALLE) sample "avocado chair" --rerank 512 --top 8 --out out/demo --sheet out/demo/sheet.png --overwrite
	@echo "open out/demo/sheet.png"

test: setup
	$(PYTEST)

# The tiny recipes alone first, with all cores: how long they take is part of what is tested.
test-slow: setup
	$(BIN)/python -m pytest -m slow tests/test_tiny.py
	$(PYTEST) -m slow --ignore tests/test_tiny.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# Karlo's size, imported and drawn with one stage at a time: 24 GiB of memory, 40 GB of disk for a while.
check-large: setup
	$(BIN)/python -m pytest -m large

# Networks of full size against the packages that hold them today, 12 GiB of memory. Of open_clip and taming the networks
# alone: what they ask for beside would bring another build of torch.
parity: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,parity]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'open_clip_torch>=3' taming-transformers-rom1504
	$(BIN)/python -m tests.parity.packages
	$(BIN)/python -m pytest tests/parity tests/convert/test_exporting.py

# Speeds next to those of other packages, some of which are installed without their dependencies.
bench: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,bench]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'open_clip_torch>=3' DALL-E dalle-pytorch \
		axial-positional-embedding rotary-embedding-torch
	$(BIN)/python -m benchmarks

# Trains the shipped weights again, a day or so on two cores; every run can be stopped and goes on. The recipes say how
# those that are shipped came about, and what a GPU takes.
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
