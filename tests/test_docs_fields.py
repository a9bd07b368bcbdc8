"""The JSON fields that the documentation names are those that the commands print."""

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from dalle_cli.data.scenes import Scenes
from tests.cli.conftest import dalle  # noqa: F401
from tests.fixtures.docs import ROOT, blocks
from tests.test_docs_generated import GENERATOR

FIELDS = GENERATOR.json_fields()
# Command lines of each command; together they print every field that is not marked as optional.
CHEAP = {
    "train-tokenizer": ["--recipe tiny --out tokens.json learn.captions=200"],
    "sample": ["red --recipe starter/dalle --out a", "red --rerank 2 --out b"],
    "reconstruct": ["cat.png --out c"],
    "upscale": ["cat.png --steps 1 --out d"],
    "inpaint": ["cat.png red --box 8,8,16,16 --steps 1 --out e"],
    "rerank": ["cat.png --prompt red"],
    "embed": ["photos --out f"],
    "recipes": [""],
    "check": ["--recipe clip/tiny"],
    "inspect": ["starter/clip", "cat.png", "starter-tokenizer.json"],
    "env": [""],
    "data scenes": ["--objects shapes --num-samples 2 --size 32 --out g"],
    "data check": ["photos"],
    "data preview": ["photos --out preview.png"],
    "export": ["starter/clip --out clip.safetensors"],
    "evaluate dvae": ["-n 4"],
    "evaluate retrieval": ["-n 4 --pool-size 2"],
    "evaluate captions": ["-n 2"],
    "evaluate scene-checker": ["-n 4"],
    "evaluate prior": ["starter/prior -n 4 --pool-size 2 --steps 2"],
}
SLOW = {
    "vary": ["cat.png --steps 2 --out h"],
    "interpolate": ["cat.png red --frames 2 --steps 2 --out i"],
    "edit": ["cat.png --from red --to blue --steps 2 --out j"],
    "evaluate scenes": ["-n 2 --rerank 1 --out k", "--recipe glide -n 2 --guidance-scale 1,2 --steps 1 --out l"],
    "evaluate upscale": ["-n 2 --out m"],
    "evaluate inpaint": ["-n 2 --steps 2 --out n"],
    "evaluate inversion": ["-n 2 --steps 2"],
    "evaluate vary": ["-n 2 --steps 2 --out p"],
    "evaluate interpolate": ["-n 2 --steps 2 --out q"],
    "evaluate edit": ["-n 2 --steps 2 --out r"],
    "probe pca": ["cat.png --steps 2 --num-scenes 8 --components 1 --out s"],
    "probe typographic": ["cat.png red --label cat -n 1 --steps 2 --out t"],
    "probe prior": ["red --steps 2 --out u"],
    "probe binding": ["--num-captions 2 --steps 2 --out v"],
    "probe diversity": ["--num-captions 2 -n 2 --steps 2 --guidance-scale 1 --out w"],
}
ELSEWHERE = {"import"}  # tests/convert: it needs a source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = Scenes(64, "shapes")
    (tmp_path / "photos").mkdir()
    for i in range(3):
        sample = source.read(0, i)
        image = Image.fromarray(sample["image"])
        image.save(tmp_path / "photos" / f"{i}.png")
        image.save(tmp_path / "cat.png")
        (tmp_path / "photos" / f"{i}.txt").write_text(sample["text"])
    tokenizer = Path(__file__).parents[1] / "dalle_cli/starter/tokenizer.json"
    (tmp_path / "starter-tokenizer.json").write_bytes(tokenizer.read_bytes())
    return tmp_path


def check(name: str, lines: list[str], run) -> None:
    documented = {key.rstrip("?"): key.endswith("?") for key in FIELDS[name]}
    printed = set()
    for line in lines:
        ended = run(*name.split(), *line.split(), *(["--json"] if name != "export" else []))
        assert ended.code == 0, ended.err
        assert ended.results
        for result in ended.results:
            printed |= set(result)
    assert printed <= set(documented)
    assert {key for key, optional in documented.items() if not optional} <= printed


@pytest.mark.parametrize("name", list(CHEAP))
def test_fields_are_those_printed(name: str, folder: Path, dalle):  # noqa: F811
    check(name, CHEAP[name], dalle)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SLOW))
def test_fields_of_diffusion_are_those_printed(name: str, folder: Path, dalle):  # noqa: F811
    check(name, SLOW[name], dalle)


@pytest.mark.slow
def test_readme_shows_the_output_of_its_commands(tmp_path: Path, dalle):  # noqa: F811
    """Scores and the sample that ranks first differ between processors; everything else is the same."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Generate\n")[2]
    lines, shown = blocks(readme, "sh")[0], blocks(readme, "json")[0]
    results = [result for line in lines.splitlines() for result in dalle(*shlex.split(line)[1:]).results]
    numeric = ("score", "similarity", "psnr", "sample_index")
    for result, example in zip(results, map(json.loads, shown.splitlines()), strict=True):
        assert result.keys() == example.keys()
        assert all(result[key] == example[key] for key in example if key not in numeric)


def test_every_documented_command_is_run():
    assert set(FIELDS) - ELSEWHERE <= set(CHEAP) | set(SLOW)
