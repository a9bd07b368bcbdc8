import pytest

from dalle_cli import evaluate
from dalle_cli.evaluate.generated import Generation
from dalle_cli.evaluate.probes.prior import CONDITIONINGS
from dalle_cli.exits import DONE, Failure
from dalle_cli.generate.outputs import Collected
from dalle_cli.systems.unclip import UnCLIP


@pytest.fixture
def prior(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(captions, **how):
        options = Generation(steps="2", precision="float32", quiet=True)
        return evaluate.probe_prior(captions, objects="shapes", recipe=unclip.recipe, options=options, **how)

    return run


@pytest.fixture
def decoded(monkeypatch):
    """The embedding, text and noise of every image that the decoder generates."""
    inputs = []
    decode = UnCLIP.decode

    def remember(self, embeddings, texts, x, *rest, **how):
        inputs.extend(zip([None] * len(texts) if embeddings is None else embeddings, texts, x))
        return decode(self, embeddings, texts, x, *rest, **how)

    monkeypatch.setattr(UnCLIP, "decode", remember)
    return inputs


def test_conditionings_share_text_and_noise(prior, decoded):
    result = prior(["a star", "a circle"], num_images=2)
    assert result.exit_code == DONE
    assert [one["conditioning"] for one in result.images] == [*CONDITIONINGS] * 4
    assert [one["prompt"] for one in result.images] == ["a star"] * 6 + ["a circle"] * 6
    assert all(-1 <= one["score"] <= 1 for one in result.images)
    assert [len(row) for row in result.rows] == [3] * 4
    assert set(result.figures) == set(CONDITIONINGS)
    without = [text for z, text, _ in decoded if z is None]
    assert sorted(without) == ["a circle"] * 2 + ["a star"] * 2
    embeddings = [z for z, text, _ in decoded if z is not None and text == "a star"]
    assert len({tuple(z.tolist()) for z in embeddings}) == 3  # the text's for both images, and two of the prior
    for caption in ("a star", "a circle"):
        noises = [x for _, text, x in decoded if text == caption]
        assert len({tuple(x.flatten().tolist()) for x in noises}) == 2  # each for all three conditionings


def test_no_text_conditions_on_embeddings_only(prior, decoded):
    result = prior(["a star"], no_text=True)
    assert [one["conditioning"] for one in result.images] == ["nothing", "text embedding", "prior"]
    assert [one["prompt"] for one in result.images] == ["a star"] * 3
    assert [text for _, text, _ in decoded] == [""] * 3
    assert [z is None for z, _, _ in decoded].count(True) == 1


def test_images_are_reported_as_they_finish(prior):
    reported = Collected()
    assert prior(["a star", "love"], results=reported).num_unchecked == 1
    assert len(reported.reported) == 6


def test_no_captions_are_an_error(prior, tmp_path):
    (tmp_path / "failed.jsonl").write_text('{"error": "no"}\n')
    with pytest.raises(Failure, match="no captions: give some"):
        prior(None, prompts="failed.jsonl")


@pytest.mark.slow
def test_command_checks_each_conditioning(probe, unclip):
    lines = probe("prior", "a red circle", "--recipe", unclip.recipe).results
    assert [one["conditioning"] for one in lines] == ["caption", "text embedding", "prior"] * 2
    assert [one["num_checked"] for one in lines[3:]] == [1, 1, 1]
    for one in lines[3:]:
        assert 0 <= one["accuracy_interval"][0] <= one["accuracy"] <= one["accuracy_interval"][1] <= 1
    suite = probe("prior", "--num-captions", 5, "--recipe", unclip.recipe, "--out", "b", terminal=True)
    table = suite.out.split("\n\n")[-1].splitlines()
    assert [line.split()[0] for line in table] == ["conditioning", "caption", "text", "prior"]
