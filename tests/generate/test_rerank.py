import json

import pytest
import torch

from dalle_cli.checkpoint import CheckpointError
from dalle_cli.exits import DONE, PARTIAL, USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.generate import rerank as module
from dalle_cli.systems.scorer import Scorer
from tests.fixtures.miniatures import CPU, noise


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / "in" / f"{i}.png" for i in range(5)]
    paths[0].parent.mkdir()
    for i, path in enumerate(paths):
        noise(i, 40 + i, 50).save(path)
    return [str(path) for path in paths]


@pytest.fixture
def rerank(tiny, capsys):
    """Run it; the exit code and the results."""

    def run(*paths, prompt=(), model=tiny.clip, **options):
        models = [model] if isinstance(model, str) else model
        code = module.rerank(paths, prompt, models=models, precision="float32", quiet=True, **options)
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def plain(tiny, paths, prompt):
    """Scores by path, the best first."""
    scorer = Scorer(CPU, tiny.clip)
    scores = {path: (scorer.images(scorer.read(path)[None]) @ scorer.texts([prompt]).T).item() for path in paths}
    return dict(sorted(scores.items(), key=lambda pair: -pair[1]))


def test_images_are_ranked_by_score(rerank, tiny, paths, tmp_path):
    expected = plain(tiny, paths, "a red circle")
    assert list(expected) != paths
    code, results = rerank(str(tmp_path / "in"), prompt=["a red circle"])
    assert code == DONE
    assert [result["path"] for result in results] == list(expected)
    assert [result["score"] for result in results] == pytest.approx(list(expected.values()), abs=2e-5)
    assert rerank(*paths, prompt=["a red circle"], top=2)[1] == results[:2]
    assert rerank(*paths, prompt=["a red circle"], batch_size=2)[1] == results


def test_each_prompt_has_its_own_ranking(rerank, tiny, paths, tmp_path):
    (tmp_path / "prompts.txt").write_text("a blue square\n")
    _, results = rerank(*paths, prompt=["a red circle"], prompts_file=str(tmp_path / "prompts.txt"), top=2)
    best = [(prompt, path) for prompt in ("a red circle", "a blue square") for path in plain(tiny, paths, prompt)]
    assert [(result["prompt"], result["path"]) for result in results] == best[:2] + best[5:7]


def test_lines_keep_their_prompts_and_fields(rerank, tiny, paths):
    lines = [
        {"prompt": prompt, "path": path, "score": 9, "mood": ["glad", i], "seed": i, "sample_index": 2}
        for i, (path, prompt) in enumerate(zip(paths, ["a red circle", "a blue square"] * 2))
    ]
    _, results = rerank(*map(json.dumps, lines), top=1)
    expected = {prompt: plain(tiny, paths[i:4:2], prompt) for i, prompt in enumerate(["a red circle", "a blue square"])}
    assert len(results) == 2
    for result, (prompt, scores) in zip(results, expected.items()):
        path = next(iter(scores))
        assert result == {**lines[paths.index(path)], "score": pytest.approx(scores[path], abs=2e-5)}
        assert result["prompt"] == prompt
    _, results = rerank(*map(json.dumps, lines), prompt=["zebra"])  # what is asked for here goes before
    assert {result["prompt"] for result in results} == {"zebra"}
    assert len(results) == 4


def test_failed_images_are_reported_last(rerank, paths, tmp_path):
    (tmp_path / "in" / "bad.png").write_text("not an image")
    failed = {"prompt": "a cat", "seed": 3, "error": "could not be generated"}
    bad = {"path": str(tmp_path / "in" / "bad.png"), "mood": 1}
    code, results = rerank(json.dumps(failed), json.dumps(bad), *paths[:2], prompt=["a red circle"], top=1)
    assert code == PARTIAL
    assert results[0]["path"] in paths[:2]
    assert results[1:] == [failed, {**bad, "error": "not an image"}]


def test_missing_prompts_are_named_before_loading(rerank, paths):
    with pytest.raises(Failure, match="no prompt to score against") as failure:
        rerank(*paths, model="none")
    assert failure.value.code == USAGE
    with pytest.raises(CheckpointError, match="no checkpoint 'none'"):
        rerank(*paths, prompt=["a cat"], model="none")


def test_sheet_shows_the_top_images(rerank, paths, tmp_path):
    sheet = tmp_path / "sheets" / "best.png"
    rerank(*paths, prompt=["a red circle"], top=1, sheet=str(sheet))
    one = sheet.stat().st_size
    with pytest.raises(Failure, match="already exists") as failure:
        rerank(*paths, prompt=["a red circle"], sheet=str(sheet), model="none")
    assert failure.value.code == WOULD_OVERWRITE
    rerank(*paths, prompt=["a red circle"], sheet=str(sheet), overwrite=True)
    assert sheet.stat().st_size > 3 * one


def test_equal_scores_keep_their_order(rerank, paths, monkeypatch):
    monkeypatch.setattr(Scorer, "images", lambda self, batch, watch: torch.ones(len(batch), 8))
    _, results = rerank(*paths[::-1], prompt=["a red circle"], batch_size=2)
    assert [result["path"] for result in results] == paths[::-1]
