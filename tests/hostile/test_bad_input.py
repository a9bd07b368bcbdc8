"""What users and strangers get wrong, through the command line: one line, the right exit code, nothing left behind."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import one_line
from tests.hostile.conftest import odd_pictures, tree

DRAW = ("sample", "--recipe", "@tiny.yaml", "-q")
RANK = ("rerank", "--model", "@clip.safetensors", "-q")
REDRAW = ("reconstruct", "--model", "@dvae.safetensors", "-q")
TRAIN = ("train-dvae", "--recipe", "@train.yaml", "-q")
PRIOR = ("train-prior", "--recipe", "dalle1-tiny", "tokenizer.path=@learned.json", "-q")
WORDS = ("train-tokenizer", "--recipe", "tiny", "--out", "w.json", "-q")
CHECK = ("data", "check", "-q")
LONG = "x" * 300
CAPTION = "a red circle"

# words of the command, exit code, what the line says
REFUSED = {
    # usage
    "unknown command": (("smaple", "x"), 2, "Did you mean 'sample'?; see dalle --help"),
    "unknown option": ((*DRAW, "x", "--sede", "1"), 2, "--seed"),
    "option without value": ((*DRAW, "x", "--seed"), 2, "--seed"),
    "count of no number": ((*DRAW, "x", "-n", "many"), 2, "-n"),
    "negative count": ((*DRAW, "x", "-n", "-1"), 2, "-n"),
    "enormous count": ((*DRAW, "x", "-n", "9" * 30), 2, "-n"),
    "count of too many pictures": ((*DRAW, "x", "-n", "1000000", "--rerank", "2"), 2, "--rerank"),
    "count beyond digits": ((*DRAW, "x", "-n", "9" * 5000), 2, "-n"),
    "negative seed": ((*DRAW, "x", "--seed", "-1"), 2, "--seed"),
    "seed of 65 bits": ((*DRAW, "x", "--seed", str(1 << 64)), 2, "--seed"),
    "top alone": ((*DRAW, "x", "--top", "2"), 2, "--top needs --rerank"),
    "temperature of no number": ((*DRAW, "x", "--temperature", "nan"), 2, "temperature"),
    "scale of no number": ((*DRAW, "x", "--scale", "inf"), 2, "scale"),
    "batch of nothing": ((*DRAW, "x", "--batch-size", "0"), 2, "--batch-size"),
    "no such precision": ((*DRAW, "x", "--precision", "int4"), 2, "--precision int4"),
    "overwrite and skip": ((*DRAW, "x", "--overwrite", "--skip-existing"), 2, "contradict"),
    "sheet of another kind": ((*DRAW, "x", "--sheet", "x.jpg"), 2, "--sheet x.jpg"),
    "no such family": (("recipes", "clp"), 2, "did you mean 'clip'"),
    "export of another type": (("export", "@dvae.safetensors", "--out", "x", "--precision", "int8"), 2, "float16"),
    "too few among": (("evaluate", "retrieval", "--model", "@clip.safetensors", "-n", "5"), 2, "--among"),
    "best of nothing": (("evaluate", "scenes", "--glyphs", "shapes", "--best-of", "1,-3"), 2, "--best-of"),
    "enormous best of": (("evaluate", "scenes", "--glyphs", "shapes", "--best-of", "9" * 30), 2, "--best-of"),
    "no such glyphs": (("evaluate", "captions", "--glyphs", "letters"), 2, "shapes"),
    "no such layout": (("data", "scenes", "out", "--format", "zip"), 2, "--format"),
    "seed of scenes": (("data", "scenes", "out", "--seed", str(1 << 64)), 2, "--seed"),
    "negative seed of scenes": (("data", "scenes", "out", "--seed", "-1"), 2, "--seed"),
    "time that is none": ((*TRAIN, "--max-time", "-5m"), 2, "--max-time"),
    "time of too many digits": ((*TRAIN, "--max-time", "9" * 5000 + "d"), 2, "--max-time"),
    "no such resume": ((*TRAIN, "--resume", "yes"), 2, "--resume yes"),
    "no processes": ((*TRAIN, "--processes", "0"), 2, "--processes"),
    # recipes and overrides
    "misspelt section": ((*TRAIN, "modle.hidden=8"), 2, "did you mean 'model'"),
    "misspelt model key": ((*TRAIN, "model.hiden=8"), 2, "did you mean 'hidden'"),
    "misspelt task key": ((*TRAIN, "task.kll=1"), 2, "task.kll"),
    "misspelt data key": ((*TRAIN, "data.sise=8"), 2, "did you mean 'size'"),
    "misspelt optim key": ((*TRAIN, "optim.lrr=8"), 2, "did you mean 'lr'"),
    "misspelt train key": ((*TRAIN, "train.stps=8"), 2, "did you mean 'steps'"),
    "misspelt tracker key": ((*TRAIN, "tracker.projct=x"), 2, "did you mean 'project'"),
    "misspelt tokenizer key": (("train-clip", "--recipe", "tiny", "-q", "tokenizer.pth=x"), 2, "did you mean 'path'"),
    "misspelt inner key": (("train-clip", "--recipe", "tiny", "-q", "model.image.widht=8"), 2, "did you mean 'width'"),
    "misspelt companion": (("train-prior", "--recipe", "dalle1-tiny", "-q", "frozen.dvea=x"), 2, "frozen.dvea"),
    "misspelt learn key": ((*WORDS, "learn.sze=600"), 2, "did you mean 'size'"),
    "misspelt section in a file": (("train-dvae", "--recipe", "@section.yaml", "-q"), 2, "did you mean 'model'"),
    "misspelt type": ((*TRAIN, "model.type=dave"), 2, "did you mean 'dvae'"),
    "misspelt data type": ((*TRAIN, "data.type=foldr"), 2, "did you mean 'folder'"),
    "misspelt glyphs": ((*TRAIN, "data.glyphs=shaps"), 2, "shapes"),
    "misspelt choice": ((*TRAIN, "train.precision=fp32"), 2, "train.precision"),
    "misspelt crop": ((*TRAIN, "data.crop=centre"), 2, "did you mean 'center'"),
    "misspelt recipe": (("train-clip", "--recipe", "vit-b23", "-q"), 2, "did you mean 'vit-b32'"),
    "no override": ((*TRAIN, "steps"), 2, "key=value"),
    "override of nothing": ((*TRAIN, "=3"), 2, "key=value"),
    "override into a number": ((*TRAIN, "train.steps.more=3"), 2, "train.steps"),
    "override of a section": ((*TRAIN, "model=3"), 2, "model"),
    "override of broken YAML": ((*TRAIN, "optim.betas=[0.9,"), 2, "optim.betas"),
    "override deep": ((*TRAIN, "model.a=" + "[" * 1500), 2, "model.a"),
    "override of dots": ((*TRAIN, "model...=3"), 2, "model"),
    "override of an interpolation": ((*TRAIN, "model.hidden=${oc.env:HOME}"), 2, "model.hidden"),
    "negative steps": ((*TRAIN, "train.steps=-1"), 2, "train.steps"),
    "enormous steps": ((*TRAIN, f"train.steps={10**30}"), 2, "train.steps"),
    "steps of too many digits": ((*TRAIN, "train.steps=" + "9" * 5000), 2, "train.steps"),
    "steps by the half": ((*TRAIN, "train.steps=1.5"), 2, "train.steps"),
    "no batch": ((*TRAIN, "train.batch_size=0"), 2, "train.batch_size"),
    "batch that does not divide": ((*TRAIN, "train.batch_size=9", "train.accumulate=2"), 2, "does not divide"),
    "rate of no number": ((*TRAIN, "optim.lr=nan"), 2, "optim.lr"),
    "negative rate": ((*TRAIN, "optim.lr=-1"), 2, "optim.lr"),
    "size of nothing": ((*TRAIN, "data.size=0"), 2, "data.size"),
    "negative width": ((*TRAIN, "model.hidden=-8"), 2, "model.hidden: -8"),
    "no groups": ((*TRAIN, "model.groups=0"), 2, "at least one group"),
    "enormous width": ((*TRAIN, "model.hidden=" + "9" * 20), 2, "model.hidden"),
    "share of bad samples": ((*TRAIN, "data.max_bad=2"), 2, "data.max_bad"),
    "seed of training": ((*TRAIN, f"train.seed={1 << 64}"), 2, "train.seed"),
    "validation of all": ((*TRAIN, "data.validation=400"), 3, "data.validation"),
    "recipe of another family": (("train-dvae", "--recipe", "vit-b32", "-q"), 2, "of `dalle train-clip`"),
    "recipe file of another family": (
        ("train-clip", "--recipe", "@train.yaml", "-q"),
        2,
        "a recipe of `dalle train-dvae`",
    ),
    "system as a training recipe": (("train-dvae", "--recipe", "@tiny.yaml", "-q"), 2, "system"),
    "training recipe as a system": (("sample", "x", "--recipe", "@train.yaml", "-q"), 2, "model"),
    "no such file": (("train-dvae", "--recipe", "gone.yaml", "-q"), 2, "gone.yaml"),
    "recipe is a folder": (("train-dvae", "--recipe", "@empty", "-q"), 2, "empty"),
    "recipe is a picture": (("train-dvae", "--recipe", "@good.png", "-q"), 2, "good.png"),
    "recipe of 5000 letters": (("train-dvae", "--recipe", "a" * 5000, "-q"), 2, "no dvae recipe"),
    "broken YAML": (("train-dvae", "--recipe", "@no.yaml", "-q"), 2, "(line "),
    "YAML list": (("check", "--recipe", "@list.yaml", "--family", "dvae"), 2, "a mapping of sections"),
    "YAML that runs code": (("train-dvae", "--recipe", "@tag.yaml", "-q"), 2, "not valid YAML"),
    "YAML that grows": (("train-dvae", "--recipe", "@billion.yaml", "-q"), 2, "billion.yaml"),
    "YAML nested deep": (("train-dvae", "--recipe", "@deep.yaml", "-q"), 2, "deep"),
    "binary YAML": (("train-dvae", "--recipe", "@binary.yaml", "-q"), 2, "binary.yaml"),
    "recipe extends itself": (("train-dvae", "--recipe", "@circle.yaml", "-q"), 2, "goes in a circle"),
    "recipe extends what is no recipe": (("train-dvae", "--recipe", "@outside.yaml", "-q"), 2, "outside"),
    "recipe refers to itself": (("train-dvae", "--recipe", "@self.yaml", "-q"), 2, "self"),
    "sections of the wrong kind": (("train-dvae", "--recipe", "@no-part.yaml", "-q"), 2, "expected a mapping"),
    "empty recipe": (("train-dvae", "--recipe", "@empty.yaml", "-q"), 2, "model"),
    "show of nothing": (("show", "gone"), 2, "no recipe and no checkpoint 'gone'"),
    "check of nothing": (("check", "--recipe", "gone"), 2, "no recipe 'gone'"),
    "check of a misspelt key": (("check", "--recipe", "dvae/tiny", "model.hiden=1"), 2, "did you mean 'hidden'"),
    "check of an enormous depth": (
        ("check", "--recipe", "clip/tiny", "model.image.depth=999999999"),
        2,
        "number of layers",
    ),
    "no data": (("train-dvae", "--recipe", "openai", "-q"), 2, "DALLE_DATA"),
    "no data to check": (CHECK, 2, "DALLE_DATA"),
    # data
    "missing path": ((*TRAIN, "data.type=folder", "data.path=gone"), 3, "no folder 'gone'"),
    "missing shards": ((*TRAIN, "data.type=shards", "data.path=gone/{0..9}.tar"), 3, "gone"),
    "endless range of shards": ((*CHECK, "data.type=shards", "{0..99999999999}.tar"), 3, "1000000 files"),
    "ranges upon ranges": ((*CHECK, "data.type=shards", "{0..9999}{0..9999}{0..9999}.tar"), 3, "1000000 files"),
    "empty folder": ((*CHECK, "@empty"), 3, "no pictures"),
    "empty folder to train on": ((*TRAIN, "data.type=folder", "data.path=@empty"), 3, "no pictures"),
    "text renamed to .jpg": ((*TRAIN, "data.type=folder", "data.path=@text", "data.validation=0"), 3, "not a picture"),
    "preview of no pictures": (("data", "preview", "@text"), 3, "not a picture"),
    "no tar": ((*CHECK, "@no.tar"), 3, "no tar header"),
    "tar cut at once": ((*CHECK, "@cut-at-once.tar"), 3, "cut short"),
    "tar whose size lies": ((*CHECK, "@size-lies.tar"), 3, "cut short"),
    "compressed tar": ((*CHECK, "@packed.tar"), 3, "gunzip"),
    "empty tar": ((*CHECK, "@empty.tar"), 3, "no samples"),
    "tar of links": ((*CHECK, "@links.tar"), 3, "links or devices"),
    "table without its columns": ((*CHECK, "@columns.csv"), 3, "data.image="),
    "table with an open quote": ((*CHECK, "@quote.csv"), 3, "quote"),
    "table of nothing": ((*CHECK, "@header.csv"), 3, "no rows"),
    "binary table": ((*CHECK, "@binary.csv"), 3, "is it text"),
    "table that is broken": ((*CHECK, "@broken.jsonl"), 3, "no columns"),
    "no Parquet": ((*CHECK, "@no.parquet"), 3, "arquet"),
    "data of another file": ((*CHECK, "@good.png"), 3, "no folder, .tar or table"),
    "path of 5000 letters": ((*CHECK, "a" * 5000), 3, "no folder"),
    "data of two paths": ((*CHECK, "@empty", "@text"), 2, "given twice"),
    "tokenizer of no kind": ((*CHECK, "@odd", "--tokenizer", "gone"), 3, "gone"),
    "tokenizer that is broken": ((*CHECK, "@odd", "--tokenizer", "@words.json"), 3, "words.json"),
    "tokenizer that grows": ((*CHECK, "@odd", "--tokenizer", "@bomb.json"), 3, "bomb.json"),
    "vocabulary of no room": ((*WORDS, "learn.size=3"), 2, "learn.size"),
    # prompts
    "no prompt": (DRAW, 2, "what to draw?"),
    "empty prompt": ((*DRAW, " "), 3, "an empty prompt"),
    "prompts missing": ((*DRAW, "--prompts", "gone.txt"), 3, "gone.txt"),
    "prompts of a folder": ((*DRAW, "--prompts", "@empty"), 3, "Is a directory"),
    "prompts of nothing": ((*DRAW, "--prompts", "@nothing.txt"), 3, "is empty"),
    "binary prompts": ((*DRAW, "--prompts", "@binary.txt"), 3, "is it a text file?"),
    "prompts in UTF-16": ((*DRAW, "--prompts", "@utf16.txt"), 3, "UTF-16; save it as UTF-8"),
    "endless line": ((*DRAW, "--prompts", "@long-line.txt"), 3, "longer than"),
    "NUL in a recipe": (("train-dvae", "--recipe", "@nul.yaml", "-q"), 3, "no folder 'a?b'"),
    "prompt with NUL": ((*DRAW, "a\0b"), 3, "NUL"),
    "prompt with half a surrogate pair": ((*DRAW, "a \ud800 b"), 3, "not Unicode"),
    "prompt too long": ((*DRAW, "word " * 10_000), 3, "shorten it to 10000"),
    "JSON that is none": ((*DRAW, "{prompt"), 3, "not JSON"),
    "JSON without a prompt": ((*DRAW, '{"seed": 3}'), 3, "no 'prompt'"),
    "JSON of the wrong type": ((*DRAW, '{"prompt": ["x"]}'), 3, "must be text"),
    "seed of 65 bits in JSON": ((*DRAW, '{"prompt": "x", "seed": 18446744073709551616}'), 3, "2**64"),
    "seed by the half in JSON": ((*DRAW, '{"prompt": "x", "seed": 1.5}'), 3, "'seed'"),
    "number of too many digits": ((*DRAW, '{"prompt": "x", "seed": ' + "9" * 5000 + "}"), 3, "digits"),
    "JSON nested deep": ((*DRAW, '{"prompt": "x", "a": ' + "[" * 10_000), 3, "nested too deeply"),
    "not a number in JSON": ((*DRAW, '{"prompt": "x", "a": NaN}'), 3, "NaN"),
    "standard input twice": ((*DRAW, "-", "-"), 3, "only once"),
    # pictures
    "picture missing": ((*REDRAW, "gone.png"), 3, "no file 'gone.png'"),
    "picture is a folder": ((*RANK, "@empty", "--prompt", "x"), 3, "no pictures"),
    "picture path of 5000 letters": ((*REDRAW, "a" * 5000), 3, "no file"),
    "continue a text": ((*DRAW, "x", "--image", "@text/a.jpg", "--keep-rows", "1"), 3, "not a picture"),
    "continue a huge picture": ((*DRAW, "x", "--image", "@huge.png", "--keep-rows", "1"), 3, "30000x30000"),
    "continue a folder": ((*DRAW, "x", "--image", "@empty", "--keep-rows", "1"), 3, "a folder"),
    "continue half a picture": ((*DRAW, "x", "--image", "@half.png", "--keep-rows", "1"), 3, "half.png"),
    "like a text": ((*DRAW, "--like", "@text/a.jpg"), 3, "not a PNG"),
    "like what is missing": ((*DRAW, "--like", "gone.png"), 3, "gone.png"),
    "like another program's": ((*DRAW, "--like", "@good.png"), 3, "nothing in it says"),
    "like a picture of half a record": ((*DRAW, "--like", "@foreign.png"), 3, "foreign.png"),
    "like a picture cut short": ((*DRAW, "--like", "@half.png"), 3, "cut short"),
    "like a picture that grows": ((*DRAW, "--like", "@text-bomb.png"), 3, "too large"),
    "like a picture of hostile JSON": ((*DRAW, "--like", "@deep-json.png"), 3, "nested too deeply"),
    "like a picture with NUL": ((*DRAW, "--like", "@nul.png"), 3, "NUL"),
    "like a picture from elsewhere": (("sample", "-q", "--like", "@elsewhere.png"), 3, "passwd"),
    "like a picture of unknown options": (("sample", "-q", "--like", "@option.png"), 2, "temperatur"),
    "inspect what grows": (("inspect", "@text-bomb.png"), 3, "too large"),
    "inspect broken JSON": (("inspect", "@no-json.png"), 3, "no-json.png"),
    "inspect a text": (("inspect", "@text/a.txt"), 3, "neither a PNG"),
    "inspect a folder": (("inspect", "@empty"), 3, "empty"),
    "inspect a device": (("inspect", "/dev/zero"), 3, "/dev/zero"),
    "score against what": ((*RANK, "@good.png"), 2, "score against what?"),
    "judge pictures of captions that are none": (
        ("evaluate", "scenes", "@text", "--glyphs", "shapes", "-q"),
        3,
        "a.jpg",
    ),
    # output
    "output through a file": ((*DRAW, "x", "--out", "@good.txt/out"), 1, "--out"),
    "output in /proc": ((*DRAW, "x", "--out", "/proc/out"), 1, "--out /proc/out"),
    "output is a file": ((*DRAW, "x", "--out", "@good.txt"), 1, "a file is in the way"),
    "output of 300 letters": ((*DRAW, "x", "--out", LONG), 1, "too long"),
    "sheet through a file": ((*DRAW, "x", "--sheet", "@good.txt/x.png"), 1, "--sheet"),
    "sheet is a folder": ((*DRAW, "x", "--sheet", "@folder.png"), 2, "is a folder"),
    "sheet is a folder to replace": ((*DRAW, "x", "--sheet", "@folder.png", "--overwrite"), 2, "is a folder"),
    "reconstructions in /proc": ((*REDRAW, "@good.png", "--out", "/proc/out"), 1, "--out /proc/out"),
    "ranking's sheet in /proc": ((*RANK, "@good.png", "--prompt", "x", "--sheet", "/proc/x.png"), 1, "/proc"),
    "preview exists": (("data", "preview", "@odd", "--out", "@good.png"), 73, "--overwrite"),
    "preview through a file": (("data", "preview", "@odd", "--out", "@good.txt/x.png"), 1, "good.txt"),
    "scenes exist": (("data", "scenes", "@empty"), 73, "is there already"),
    "scenes through a file": (("data", "scenes", "@good.txt/x", "--glyphs", "shapes", "-q"), 1, "good.txt"),
    "scenes in /proc": (("data", "scenes", "/proc/x", "--glyphs", "shapes", "-q"), 1, "/proc"),
    "vocabulary exists": (("train-tokenizer", "--recipe", "tiny", "--out", "@words.json", "-q"), 73, "--overwrite"),
    "vocabulary through a file": (("train-tokenizer", "--recipe", "tiny", "--out", "@good.txt/w", "-q"), 1, "good.txt"),
    "vocabulary in /proc": (("train-tokenizer", "--recipe", "tiny", "--out", "/proc/w", "-q"), 1, "/proc"),
    "vocabulary is a folder": (
        ("train-tokenizer", "--recipe", "tiny", "--out", "@empty", "--overwrite", "-q"),
        2,
        "is a folder",
    ),
    "export exists": (("export", "@dvae.safetensors", "--out", "@good.txt"), 73, "--overwrite"),
    "export through a file": (("export", "@dvae.safetensors", "--out", "@good.txt/x"), 1, "good.txt"),
    "export in /proc": (("export", "@dvae.safetensors", "--out", "/proc/x"), 1, "/proc"),
    "scenes judged in /proc": (
        ("evaluate", "scenes", "--recipe", "@tiny.yaml", "--glyphs", "shapes", "-n", "5", "--out", "/proc/x", "-q"),
        1,
        "/proc",
    ),
    # checkpoints
    "no such model": (("evaluate", "dvae", "--model", "gone", "--glyphs", "shapes"), 3, "no checkpoint 'gone'"),
    "model of 5000 letters": (("inspect", "a" * 5000), 3, "no checkpoint"),
    "model of another kind": ((*REDRAW[:2], "@clip.safetensors", "@good.png"), 3, "where a 'dvae' is needed"),
    "model is a picture": ((*REDRAW[:2], "@good.png", "@good.png"), 3, "not a safetensors file"),
    "model is a pickle": (("export", "@pickle.safetensors", "--out", "x"), 3, "not a safetensors file"),
    "model of another program": (("export", "@foreign.safetensors", "--out", "x"), 3, "not of dalle"),
    "model cut in half": (("export", "@cut.safetensors", "--out", "x"), 3, "cut short"),
    "model with a flipped bit": ((*REDRAW[:2], "@flipped.safetensors", "@good.png", "-q"), 3, "damaged"),
    "header that lies about a shape": ((*REDRAW[:2], "@lying.safetensors", "@good.png", "-q"), 3, "lying"),
    "header that lies about an offset": (("inspect", "@past.safetensors"), 3, "past"),
    "header that lies about its length": (("inspect", "@length.safetensors"), 3, "not a"),
    "hostile part": ((*REDRAW[:2], "@hostile.safetensors", "@good.png", "-q"), 3, "os.system"),
    "enormous model": ((*REDRAW[:2], "@enormous.safetensors", "@good.png", "-q"), 3, "model.vocab"),
    "model larger than its file": ((*REDRAW[:2], "@large.safetensors", "@good.png", "-q"), 3, "does not fit"),
    "negative model": ((*REDRAW[:2], "@negative.safetensors", "@good.png", "-q"), 3, "model.hidden: -8"),
    "endless model": ((*REDRAW[:2], "@endless.safetensors", "@good.png", "-q"), 3, "does not fit"),
    "no task": ((*REDRAW[:2], "@no-task.safetensors", "@good.png", "-q"), 3, "task"),
    "companions of the wrong kind": ((*REDRAW[:2], "@companions.safetensors", "@good.png", "-q"), 3, "frozen"),
    "recipe nested deep": (("show", "@deep.safetensors"), 3, "damaged"),
    "overrides of a checkpoint": (("show", "@dvae.safetensors", "model.hidden=3"), 2, "is a checkpoint"),
    "start from what is missing": ((*TRAIN, "train.init=gone"), 3, "no checkpoint 'gone'"),
    "start from another model": ((*TRAIN, "train.init=@clip.safetensors"), 3, "does not fit the model"),
    "companion that is missing": ((*PRIOR, "frozen.dvae=gone"), 3, "no checkpoint 'gone'"),
    "companion of another kind": ((*PRIOR, "frozen.dvae=@clip.safetensors"), 2, "frozen.dvae"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_line_the_code_and_nothing_left(run, files, tmp_path, name):
    words, code, said = REFUSED[name]
    before = tree(files)
    ended = run(*words)
    assert (ended.code, one_line(ended.err)) == (code, True), ended.err
    assert said in ended.err
    assert len(ended.err) < 1100
    assert tree(tmp_path) == {}
    assert tree(files) == before


# ---- what is odd and right -------------------------------------------------------------------------------------------


def test_odd_pictures_are_pictures(run, files):
    """Animated, CMYK, 16-bit, turned by EXIF, of a palette, with transparency: each command reads them all."""
    redrawn = run(*REDRAW, "@odd")
    assert redrawn.code == 0, redrawn.err
    shown = {Path(line["image"]).name: np.asarray(Image.open(line["path"])).astype(int) for line in redrawn.results}
    assert len(shown) == len(odd_pictures())
    for name, pixels in shown.items():
        red, green, blue = pixels[:16].mean(axis=(0, 1)) if name != "turned.jpg" else pixels[:7].mean(axis=(0, 1))
        wanted = {"deep.png": (156, 156, 156), "palette.png": (255, 255, 255), "alpha.png": (255, 127, 127)}
        assert np.allclose((red, green, blue), wanted.get(name, (254, 0, 0)), atol=4), name
    assert shown["turned.jpg"][9:16, :, 2].mean() > 240  # the right half, below now
    ranked = run(*RANK, "@odd", "--prompt", CAPTION)
    assert (ranked.code, len(ranked.results)) == (0, len(odd_pictures()))
    checked = run(*CHECK, "@odd")
    assert (checked.code, checked.result["good"]) == (0, len(odd_pictures()))
    assert run("data", "preview", "@odd", "data.size=16").code == 0
    data = ("data.type=folder", "data.path=@odd", "data.validation=0", "data.captions=true", "data.workers=0")
    trained = run(*TRAIN, *data, "train.steps=2", "train.preview=0")
    assert trained.code == 0, trained.err
    assert not Path("checkpoints/dvae-train/bad_samples.jsonl").exists()


@pytest.mark.parametrize("data", ["@long", "@nul", "@no-text", "@surrogate.jsonl", "@dots.tar", "@cut.tar"])
def test_odd_captions_and_names_are_data(run, files, tmp_path, data):
    """Captions of 10,000 words, with NUL, of no UTF-8, with half a surrogate pair; names with `..` and from `/`."""
    ended = run(*CHECK, data, "--tokenizer", "@learned.json", "--context", "8")
    assert ended.code == 0, ended.err
    assert ended.result["good"] > 0
    assert tree(tmp_path) == {}
    assert run("data", "preview", data, "-n", "4", "data.size=16").code == 0
    kind = {".jsonl": "table", ".tar": "shards"}.get(Path(data).suffix, "folder")
    words = (*WORDS, f"data.type={kind}", f"data.path={data}", "learn.captions=100")
    assert run(*words).code == 0
    assert set(tree(tmp_path)) == {"one/two/sheet.png", "one/two/w.json"}


def test_bad_samples_are_counted_and_no_more(run, files, tmp_path):
    found = run(*CHECK, "@bombs")
    assert (found.code, found.err) == (4, "")
    assert found.result["bad"] == {"too many pixels": 2, "cannot be decoded": 1}
    assert found.result["good"] == 2
    for table, bad in (("nul", 1), ("numbers", 1)):
        ended = run(*CHECK, f"@{table}.jsonl")
        assert (ended.code, ended.result["good"], sum(ended.result["bad"].values())) == (4, 1, bad)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "prompt",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a\\b\\..",
        "con",
        ".",
        "...",
        "x" * 500,
        "é" * 500,
        "a\tb\x1b[31m",
        "-n\n-n",
        "%s{0}$HOME",
    ],
)
def test_prompts_are_no_file_names(run, tmp_path, prompt):
    ended = run(*DRAW, json.dumps({"prompt": prompt}), "--sheet", "sheet.png")
    assert (ended.code, ended.err) == (0, "")
    (path,) = (name for name in tree(tmp_path) if name != "one/two/sheet.png")
    assert Path(path).parent == Path("one/two/out")
    assert re.fullmatch(r"000000-0-[a-z0-9-]{1,40}\.png", Path(path).name)
    assert run("inspect", ended.result["path"]).result["dalle"]["prompt"] == prompt


def test_enormous_numbers_that_harm_nobody(run):
    words = (
        "--batch-size",
        "9" * 18,
        "--top-k",
        "9" * 18,
        "--seed",
        str((1 << 64) - 1),
        "--rerank",
        "2",
        "--top",
        "9" * 18,
    )
    ended = run(*DRAW, "x", *words)
    assert (ended.code, len(ended.results)) == (0, 2)


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_lines_that_cannot_be_meant_are_items_that_failed(run):
    lines = (
        "a red circle",
        "{broken",
        '{"prompt": 3}',
        '{"prompt": "zebra", "seed": -1}',
        '{"prompt": "zebra"}',
        "x" * 10_001,
    )
    ended = run(*DRAW, "-", stdin="\n".join(lines).encode())
    assert (ended.code, ended.err) == (4, "")
    assert [line.get("prompt") for line in ended.results[:2]] == ["a red circle", "zebra"]
    assert [line["error"].split(":")[0] for line in ended.results[2:]] == [
        f"standard input, line {number}" for number in (2, 3, 4, 6)
    ]


def test_pictures_that_are_missing_are_items_that_failed(run, files):
    for words in (REDRAW, (*RANK, "--prompt", "x")):
        ended = run(*words, "-", stdin=f'{{"path": "gone.png"}}\n{files}/good.png\n'.encode())
        assert (ended.code, ended.err) == (4, "")
        errors = [line["error"] for line in ended.results if "error" in line]
        assert len(errors) == 1
        assert "no file 'gone.png'" in errors[0]


def test_prompts_to_judge_by_that_cannot_be_meant(run, tmp_path):
    Path("prompts.jsonl").write_text('{"prompt": "zebra"}\n{"prompt": null}\n')
    ended = run(*RANK, "@good.png", "--prompts", "prompts.jsonl")
    assert [("score" in line, "error" in line) for line in ended.results] == [(True, False), (False, True)]
    assert ended.code == 4


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", "standard input is empty"),
        (b"\n \n", "standard input is empty"),
        (bytes(range(256)) * 9, "is it a text file?"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "text"),
        ("zebra".encode("utf-16"), "UTF-16"),
        (b"\xff\xfe\xfd", "UTF-"),
        (b"zebra \xe9", "not UTF-8"),
        (b"x" * (1 << 20), "longer than"),
        (b"{broken\n{as well\n", "line 1: not JSON"),
    ],
)
@pytest.mark.parametrize(
    "command", [DRAW, REDRAW, RANK, ("evaluate", "scenes", "--glyphs", "shapes", "-q")], ids=lambda words: words[0]
)
def test_standard_input_that_is_none(run, tmp_path, command, stdin, said):
    ended = run(*command, "-", stdin=stdin)
    assert (ended.code, ended.out, one_line(ended.err)) == (3, "", True), ended.err
    assert said in ended.err
    assert tree(tmp_path) == {}


def test_a_size_that_does_not_fit_is_found_at_the_first_step(run):
    ended = run(*TRAIN, "data.size=17")
    assert (ended.code, one_line(ended.err)) == (3, True)
    assert "17x17 px do not divide by 2" in ended.err


def test_a_measurement_stops_at_a_line_that_cannot_be_meant(run, files):
    lines = f'{{"path": "{files}/good.png", "prompt": "{CAPTION}"}}\n{{broken\n'
    ended = run("evaluate", "scenes", "-", "--glyphs", "shapes", "-q", stdin=lines.encode())
    assert (ended.code, ended.out, one_line(ended.err)) == (3, "", True)
    assert "line 2" in ended.err
