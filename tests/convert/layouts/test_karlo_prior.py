import pytest

from dalle_cli import checkpoint
from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state
from tests.convert.miniatures import LARGE_PRIOR, PRIOR, assert_size, round_trip, shapes_of, state_of

PRIOR = PRIOR | {"text_width": 20}


def test_round_trip():
    round_trip("karlo-prior", PRIOR)


def test_keys_are_the_published_ones():
    shapes = shapes_of("karlo-prior", PRIOR)
    assert shapes["model.prd_emb"] == (1, 1, 128)
    assert shapes["model.positional_embedding"] == (1, 11, 128)
    assert shapes["clip_mean"] == shapes["clip_std"] == (24,)


def test_published_size():
    assert_size("karlo-prior", LARGE_PRIOR, 1_022_028_544 + 2 * 768, 256 + 2)


def test_missing_statistics_are_named():
    published = export_state("karlo-prior", PRIOR, state_of(PRIOR))
    del published["clip_mean"], published["clip_std"]
    with pytest.raises(ConvertError, match="2 missing: clip_mean, clip_std"):
        import_state(published)


def test_imported_prior_needs_its_clip():
    recipe = {"model": PRIOR, "task": all_layouts()["karlo-prior"].task(PRIOR)}
    assert checkpoint.check(recipe)["task"] == {"type": "diffusion-prior", "schedule": "cosine", "text_drop_prob": 0.2}
    task = checkpoint.compose(recipe)
    with pytest.raises(ValueError, match=r"frozen\.clip: name the CLIP"):
        task.sample(["a red circle"], [0])
