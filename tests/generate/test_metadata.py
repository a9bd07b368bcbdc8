import hashlib
import json
import re
import struct
import time
import zlib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from dalle_cli import __version__
from dalle_cli.generate import metadata
from dalle_cli.generate.metadata import MAX_TEXT, SIGNATURE, MetadataError, Origin, chunks, read, recall, whole
from dalle_cli.generate.requests import (
    MAX_JSON_DEPTH,
    GenerationRequest,
    PlannedImage,
    PromptError,
    plan_images,
    read_requests,
)
from dalle_cli.images import save_png

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)

ORIGIN = Origin(
    command="sample",
    recipe="recipes/systems/unclip.yaml",
    options={
        "prior": {"sampler": "ddpm", "steps": 25, "guidance_scale": 4.0},
        "decoder": {"sampler": "ddim", "steps": 50},
    },
    models={"decoder": "0123456789abcdef" * 4, "prior": "f" * 64},
)


def save(
    path, request: GenerationRequest, origin: Origin = ORIGIN, index: int = 0, seed: int = 7, sample_index: int = 3
):
    save_png(Image.new("RGB", (4, 6)), path, chunks(origin, PlannedImage(index, seed, sample_index, request), (4, 6)))
    return path


def browsed(parameters: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and pairs, as readers of this layout take it apart."""
    *lines, last = parameters.split("\n")
    negatives = [line for line in lines if line.startswith("Negative prompt: ")]
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    values = {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}
    return lines[0], negatives[0].removeprefix("Negative prompt: ") if negatives else "", values


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*middle: bytes) -> bytes:
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))
    header = chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 2, 0, 0, 0))
    return SIGNATURE + header + b"".join(middle) + pixels + metadata.END


def record(**changes) -> bytes:
    fields = json.loads(chunks(ORIGIN, PlannedImage(0, 7, 3, GenerationRequest("a cat")), (4, 6))["dalle"])
    fields.update(changes)
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("metadata") / "x.png"


def test_image_records_how_to_reproduce_it(scratch):
    asked = GenerationRequest("a red apple", None, {"image": "in.png", "mood": ["glad"], "score": 0.5})
    save(scratch, asked, index=12)
    assert read(scratch)["dalle"] == {
        "command": "sample",
        "version": __version__,
        "recipe": ORIGIN.recipe,
        "options": ORIGIN.options,
        "models": ORIGIN.models,
        "prompt": "a red apple",
        "seed": 7,
        "sample_index": 3,
        "index": 12,
        "fields": {"image": "in.png", "mood": ["glad"]},
    }
    origin, request = recall(scratch)
    assert origin == ORIGIN
    (again,) = plan_images([request])
    assert (again.seed, again.sample_index, again.request.prompt) == (7, 3, "a red apple")
    assert again.request.passthrough == asked.passthrough


@given(prompt=text, seed=st.integers(0, 2**64 - 1), fields=st.dictionaries(st.just("negative_prompt"), text))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("りんご 🍎\nNegative prompt: ¶\r\nSteps: 1, Seed: 2", 0, {})
@example("", 0, {"negative_prompt": 'with, "commas": and\nlines'})
def test_any_prompt_is_read_back_and_browsed(scratch, prompt, seed, fields):
    save(scratch, GenerationRequest(prompt, None, fields), seed=seed)
    assert recall(scratch)[1].prompt == prompt
    with Image.open(scratch) as image:  # what other programs see
        assert json.loads(image.info["dalle"])["prompt"] == prompt
        seen, negative, pairs = browsed(image.info["parameters"])
    assert image.info["parameters"] == read(scratch)["parameters"]
    assert seen == " ".join(prompt.split())
    assert negative == " ".join(fields.get("negative_prompt", "").split()) or seen.startswith("Negative prompt: ")
    assert pairs["Seed"] == str(seed)
    assert pairs["Size"] == "4x6"


def test_the_line_that_browsers_read():
    item = PlannedImage(0, 7, 0, GenerationRequest("a cat", None, {"negative_prompt": "blur"}))
    assert metadata.parameters(ORIGIN, item, (64, 32)) == (
        "a cat\nNegative prompt: blur\nSteps: 50, Sampler: ddim, CFG scale: 4.0, Seed: 7, Size: 64x32,"
        f" Model hash: 0123456789, Model: unclip, Version: dalle {__version__}"
    )


def test_options_of_the_system_come_before_those_of_its_parts():
    options = {
        "steps": 9,
        "sampler": "plms, twice",
        "prior": {"steps": 25, "guidance_scale": 4},
        "decoder": {"steps": 50},
    }
    _, _, pairs = browsed(
        metadata.parameters(Origin("x", "a:b", options, {}), PlannedImage(0, 7, 0, GenerationRequest()), (1, 1))
    )
    assert (pairs["Steps"], pairs["Sampler"], pairs["CFG scale"]) == ("9", "plms, twice", "4")
    assert pairs["Model"] == "a:b"
    assert "Model hash" not in pairs


def test_browsers_find_the_line_of_what_is_drawn_in_one_pass():
    line = metadata.parameters(
        Origin("reconstruct", "tiny", {}, {}), PlannedImage(0, 7, 0, GenerationRequest()), (1, 1)
    ).split("\n")[-1]
    assert line.startswith("Steps: 1, Seed: 7, ")


def test_longest_request_fits(scratch):
    nested = []
    for _ in range(MAX_JSON_DEPTH - 1):
        nested = [nested]
    fields = {"nested": nested, "long": "é" * 120_000}
    (request,) = read_requests([json.dumps({"prompt": "\x01" * 10_000, **fields}, ensure_ascii=False)])
    save(scratch, request)
    assert recall(scratch)[1].passthrough == fields
    with pytest.raises(PromptError, match="nested too deeply"):
        read_requests([json.dumps({"prompt": "x", "nested": [nested]})])


def test_images_of_other_programs(scratch):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a", zip=True)
    chunks.add_itxt("XML:com.adobe.xmp", "<x/>" * 2_000_000)  # large, and not ours
    Image.new("RGB", (300, 300)).save(scratch, pnginfo=chunks)
    assert read(scratch) == {"parameters": "a cat\nSteps: 20, Sampler: Euler a"}
    with pytest.raises(MetadataError, match="nothing in it says how to generate it again"):
        recall(scratch)
    Image.new("RGB", (4, 4)).save(scratch)
    assert read(scratch) == {}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("add", ["add_text", "add_itxt"])
def test_all_kinds_of_text_chunks_are_read(scratch, add, zipped):
    chunks = PngImagePlugin.PngInfo()
    getattr(chunks, add)("dalle", record(prompt="café").decode(), zip=zipped)
    Image.new("RGB", (4, 4)).save(scratch, pnginfo=chunks)
    assert recall(scratch)[1].prompt == "café"


BOMB = zlib.compress(b" " * (100 * MAX_TEXT), 9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a PNG"),
        (b"GIF89a" + bytes(100), "not a PNG"),
        (SIGNATURE, "cut short"),
        (png()[:-6], "cut short"),
        (png(chunk(b"tEXt", b"dalle\0" + record()))[:60], "cut short"),
        (png(chunk(b"tEXt", b"dalle\0" + record()).replace(b"a cat", b"a hat")), "damaged"),
        (png(b"\xff\xff\xff\xfftEXtdalle\0{"), "damaged|Truncated"),
        (png(chunk(b"tEXt", b"dalle\0" + b" " * (MAX_TEXT + 1))), "too large"),
        (png(chunk(b"zTXt", b"dalle\0\0" + BOMB)), "too large"),
        (png(chunk(b"iTXt", b"parameters\0\1\0\0\0" + BOMB)), "too large"),
        (png(chunk(b"zTXt", b"dalle\0\0" + zlib.compress(record())[:-20])), "its text 'dalle': not JSON"),
        (png(chunk(b"tEXt", b"dalle")), "its text 'dalle': not JSON"),
        (png(chunk(b"tEXt", b"dalle\0{")), "its text 'dalle': not JSON"),
        (png(chunk(b"tEXt", b"dalle\0[]")), "its text 'dalle': expected a JSON object"),
        (png(chunk(b"tEXt", b"dalle\0" + b"[" * 100_000)), "nested too deeply"),
        (png(chunk(b"tEXt", b"dalle\0{}")), "'command' is missing or of the wrong type"),
        (png(chunk(b"tEXt", b"dalle\0" + record(options=[]))), "'options' is missing or of the wrong type"),
        (png(chunk(b"tEXt", b"dalle\0" + record(index=True))), "'index' is missing or of the wrong type"),
        (png(chunk(b"tEXt", b"dalle\0" + record(models={"clip": 3}))), "'models' must name a hash"),
        (png(chunk(b"tEXt", b"dalle\0" + record(seed=...))), "'seed' or"),
        (png(chunk(b"tEXt", b"dalle\0" + record(seed=2**64))), "'seed' must be an integer"),
        (png(chunk(b"tEXt", b"dalle\0" + record(sample_index="3"))), "'sample_index' must be an integer"),
        (png(chunk(b"tEXt", b"dalle\0" + record(prompt=["a"]))), "'prompt' must be text"),
        (png(chunk(b"tEXt", b"dalle\0" + record(prompt="\ud800"))), "not Unicode"),
        (png(chunk(b"tEXt", b"dalle\0" + record(fields={"image": 3}))), "'image' must be the path"),
    ],
)
def test_untrusted_images_are_refused_in_one_line(scratch, content, message):
    scratch.write_bytes(content)
    start = time.process_time()
    with pytest.raises(MetadataError, match=message) as error:
        read(scratch)
    assert time.process_time() - start < 2
    assert str(error.value).startswith(f"{scratch}: ")
    assert "\n" not in str(error.value)


def test_pixels_are_not_decoded(scratch, monkeypatch):
    scratch.write_bytes(png(chunk(b"tEXt", b"dalle\0" + record())))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: pytest.fail("pixels were decoded"))
    assert recall(scratch)[1].prompt == "a cat"


def test_images_of_version_0_1_are_understood(scratch):
    old = record(
        draw=5, sample_index=..., options={"scale": 2.0, "guide": "free", "best_of": 3, "guided_at": [1, 9]},
        models={"embedder": "a", "clip": "b", "decoder": "c"},
    )  # fmt: skip
    scratch.write_bytes(png(chunk(b"tEXt", b"dalle\0" + old)))
    origin, request = recall(scratch)
    assert request.fields["sample_index"] == 5
    assert origin.options == {
        "guidance_scale": 2.0, "guidance": "cfg", "prior_samples": 3, "guidance_interval": [1, 9],
    }  # fmt: skip
    assert origin.models == {"clip": "a", "reranker": "b", "decoder": "c"}


def test_missing_files(tmp_path):
    with pytest.raises(MetadataError, match="No such file"):
        read(tmp_path / "gone.png")
    with pytest.raises(MetadataError, match="Is a directory"):
        read(tmp_path)


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_gives_one_line_or_the_record(scratch, data):
    good = png(chunk(b"tEXt", b"dalle\0" + record()), chunk(b"IDAT", b"pixels"))
    at = data.draw(st.integers(0, len(good) - 1))
    change = data.draw(st.binary(max_size=4))
    scratch.write_bytes(good[:at] + change + good[at + data.draw(st.integers(0, 4)) :])
    try:
        outcome = read(scratch)
    except MetadataError as error:
        outcome = str(error)
    assert outcome in ({}, {"dalle": json.loads(record())}) or re.fullmatch(f"{scratch}: .+", outcome)


def test_whole_recognizes_interrupted_writes(scratch):
    save(scratch, GenerationRequest("a cat"))
    good = scratch.read_bytes()
    assert whole(scratch)
    for broken in (good[:-1], good[: len(good) // 2], good[1:], b"", good[:5], bytes(len(good)), good + b"x"):
        scratch.write_bytes(broken)
        assert not whole(scratch)
    assert not whole(scratch.parent / "gone.png")
    assert not whole(scratch.parent)


def test_digest_is_sha256(tmp_path):
    (tmp_path / "model").write_bytes(b"weights" * 100_000)
    assert metadata.digest(tmp_path / "model") == hashlib.sha256(b"weights" * 100_000).hexdigest()
