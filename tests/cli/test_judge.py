import io
import json
import os
import sys

import pytest

from dalle_cli import checkpoint
from tests.cli.conftest import one_line
from tests.fixtures.miniatures import noise


@pytest.fixture
def rerank(dalle, tiny, tmp_path):
    """`dalle rerank` with the tiny CLIP, where `in/` holds four images."""
    (tmp_path / "in").mkdir()
    for i in range(4):
        noise(i, 32, 32).save(tmp_path / "in" / f"{i}.png")

    def run(*words, model=tiny.clip, **how):
        return dalle("rerank", "--model", model, "--precision", "float32", *words, **how)

    return run


def typed(monkeypatch, *lines):
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_rerank_sorts_a_folder(rerank):
    ended = rerank("in", "--prompt", "a red circle")
    assert ended.code == 0
    assert sorted(line["path"] for line in ended.results) == [f"in/{i}.png" for i in range(4)]
    scores = [line["score"] for line in ended.results]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4
    assert rerank("in", "--prompt", "a red circle", "--top", "2").results == ended.results[:2]
    other = rerank("in", "--prompt", "zebra", "--prompt", "a red circle").results
    assert [line["prompt"] for line in other] == ["zebra"] * 4 + ["a red circle"] * 4
    assert other[4:] == ended.results


def test_scores_of_several_models_are_averaged(rerank, glide):
    (single,) = rerank("in/0.png", "--prompt", "zebra").results
    (both,) = rerank("in/0.png", "--prompt", "zebra", "--model", glide.noised_clip).results
    (other,) = rerank("in/0.png", "--prompt", "zebra", model=glide.noised_clip).results
    assert both["score"] == pytest.approx((single["score"] + other["score"]) / 2, abs=1e-3)


def test_terminal_shows_a_table(rerank):
    lines = rerank("in", "--prompt", "a red circle", terminal=True).out.splitlines()
    assert lines[0].split() == ["score", "path", "prompt"]
    assert len(lines) == 5
    assert sum(line.endswith("a red circle") for line in lines) == 4


def test_lines_of_an_earlier_command_are_ranked(rerank, monkeypatch):
    lines = [
        {"index": i, "path": f"in/{i}.png", "prompt": "zebra", "seed": 3, "sample_index": i, "id": [i]}
        for i in range(3)
    ]
    failed = {"index": 3, "prompt": "zebra", "seed": 3, "sample_index": 3, "error": "could not be generated"}
    typed(monkeypatch, *lines, failed)
    ended = rerank("--top", "2", "-")
    assert ended.code == 4
    *best, last = ended.results
    assert last == failed
    assert len(best) == 2
    for line in best:
        assert {**lines[line["index"]], "score": line["score"]} == line
    assert best[0]["score"] > best[1]["score"]


def test_unreadable_images_are_failed_results(rerank, tmp_path):
    (tmp_path / "in" / "0.png").write_text("not an image")
    (tmp_path / "in" / "1.png").write_bytes((tmp_path / "in" / "2.png").read_bytes()[:500])
    ended = rerank("in", "--prompt", "zebra")
    assert ended.code == 4
    assert [line["path"] for line in ended.results if "error" in line] == ["in/0.png", "in/1.png"]
    assert [line.get("error") for line in ended.results][2] == "not an image"
    assert len([line for line in ended.results if "score" in line]) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("in",), 2, "no prompt to score against"),
        (("in", "--prompt", "zebra", "--model", "gone"), 3, "no checkpoint 'gone'"),
        (("in", "--prompt", "zebra", "--model", "DVAE"), 3, "where a 'clip' or a 'noised-clip' is needed"),
        (("in/9.png", "--prompt", "zebra"), 3, "no file 'in/9.png'"),
        (("in", "--prompt", "zebra", "--prompts", "none.txt"), 3, "none.txt: No such file"),
        (("in", "--prompt", "zebra", "--precision", "half"), 2, "choose auto"),
        (("-", "--prompt", "x"), 3, "standard input, line 1: not JSON"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(rerank, tiny, monkeypatch, words, code, said):
    typed(monkeypatch, "{broken")
    ended = rerank(*(tiny.dvae if word == "DVAE" else word for word in words))
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True), ended.err
    assert said in ended.err


def test_a_sheet_of_the_best(rerank):
    assert rerank("in", "--prompt", "zebra", "--top", "1", "--sheet", "best.png").code == 0
    size = os.path.getsize("best.png")
    assert size > 0
    ended = rerank("in", "--prompt", "zebra", "--sheet", "best.png", "--model", "gone")
    assert (ended.code, one_line(ended.err)) == (73, True)
    assert os.path.getsize("best.png") == size


PRIOR = """
tokenizer: {type: clip, path: words.json}
model: {type: ar-prior, embed_dim: EMBED, context_length: CONTEXT, text_width: STATES, components: 4, buckets: 4,
  width: 16, depth: 1, heads: 2}
task: {type: ar-prior}
frozen: {clip: CLIP}
data: {type: embeddings, path: embedded, size: 16, val_samples: 20, num_workers: 0}
optim: {lr: 1.0e-3}
train: {steps: 3, batch_size: 20, precision: float32, preview_images: 0}
"""


def test_embed_then_train_a_prior(dalle, tiny, tmp_path):
    done = dalle("embed", "data.type=scenes", "data.objects=shapes", "-n", "120", "--model", tiny.clip, "-q")
    assert (done.code, done.result["num_samples"], done.result["path"]) == (0, 120, "embedded")
    shown = dalle("embed", "data.type=scenes", "data.objects=shapes", "-n", "120", "--model", tiny.clip,
                  terminal=True)  # fmt: skip
    assert "train on them with data.type=embeddings data.path=embedded" in shown.out
    clip = checkpoint.load(tiny.clip)
    text = PRIOR.replace("EMBED", str(clip.model.embed_dim)).replace("STATES", str(clip.model.text.width))
    text = text.replace("CONTEXT", str(clip.model.text.context_length)).replace("CLIP", str(tiny.clip))
    (tmp_path / "prior.yaml").write_text(text)
    clip.tokenizer.save(tmp_path / "words.json")
    trained = dalle("train-prior", "--recipe", "prior.yaml", "-q")
    assert trained.code == 0, trained.err
    words = ("evaluate", "prior", "prior-prior", "-n", "20", "--pool-size", "10", "--objects", "shapes", "-q")
    found = dalle(*words).result
    assert [row["name"] for row in found["priors"]] == ["text embedding", "prior-prior", "another image"]
    assert "recall at 1 of 10" in dalle(*words, terminal=True).out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("embed", "--out", "out"), 2, "which data?"),
        (("embed", "nowhere", "--out", "out"), 3, "no folder, .tar or table"),
        (("embed", "data.type=scenes", "--out", "in"), 73, "holds other files"),
        (("embed", "data.type=scenes", "--out", "out", "--model", "gone"), 3, "no checkpoint 'gone'"),
    ],
)
def test_embed_errors_are_one_line(rerank, dalle, tmp_path, words, code, said):
    ended = dalle(*words)
    assert ended.code == code
    assert one_line(ended.err)
    assert said in ended.err
    assert not (tmp_path / "out").exists()
