import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.exits import USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.training import state
from dalle_cli.training.resume import frozen_checksums, resumable
from tests.test_migrations import as_version_1
from tests.training.test_state import trained


@pytest.fixture
def run(tmp_path, recipe):
    state.save(tmp_path, recipe(), 3, 12, state.gather(*trained()), {}, keep=2)
    return tmp_path


def ignore(line):
    pass


def test_a_fresh_folder_has_nothing_to_go_on_from(tmp_path, recipe):
    assert resumable(tmp_path / "new", recipe(), "auto", ignore) is None
    assert resumable(tmp_path / "new", recipe(), "no", ignore) is None


def test_the_same_recipe_goes_on_whatever_only_looks_on(run, recipe):
    watched = recipe(train={"log_every": 7, "save_every": "9m", "keep_last": 5}, data={"num_workers": 2})
    assert resumable(run, watched, "auto", ignore) == state.saved(run)[0]


@pytest.mark.parametrize("section", [{"optim": {"lr": 1.0}}, {"train": {"batch_size": 4}}, {"data": {"samples": 100}}])
def test_another_recipe_is_refused_and_said_when_forced(run, recipe, section):
    changed = recipe(**section)
    with pytest.raises(Failure, match="continue with --resume force") as caught:
        resumable(run, changed, "auto", ignore)
    assert caught.value.code == WOULD_OVERWRITE
    said = []
    assert resumable(run, changed, "force", said.append) is not None
    (name,) = section
    assert any(line.startswith(f"changed since the saved state: {name}.") for line in said)


def test_a_companion_may_lie_elsewhere_but_not_be_another(tmp_path, recipe):
    files = [tmp_path / name for name in ("one.safetensors", "same.safetensors", "other.safetensors")]
    for file, value in zip(files, (1.0, 1.0, 2.0)):
        checkpoint.save(file, {"w": torch.full((2,), value)}, {"model": {"type": "clip"}})
    before, elsewhere, other = ({**recipe(), "frozen": {"clip": str(file)}} for file in files)
    extra = {"frozen": frozen_checksums(before)}
    state.save(tmp_path, before, 3, 12, state.gather(*trained()), extra, keep=2)
    assert resumable(tmp_path, elsewhere, "auto", ignore) == state.saved(tmp_path)[0]
    with pytest.raises(Failure, match=r"another recipe \(frozen\.clip: its checkpoint changed\)"):
        resumable(tmp_path, other, "auto", ignore)
    said = []
    assert resumable(tmp_path, other, "force", said.append) is not None
    assert said == ["changed since the saved state: frozen.clip: its checkpoint changed"]


def test_no_means_a_folder_of_its_own(run, recipe):
    with pytest.raises(Failure, match="holds a run; choose another --run"):
        resumable(run, recipe(), "no", ignore)
    with pytest.raises(Failure, match="--resume perhaps: choose one of auto, no, force") as caught:
        resumable(run, recipe(), "perhaps", ignore)
    assert caught.value.code == USAGE


def test_a_folder_with_nothing_whole_is_not_written_over(run, recipe):
    for path in state.saved(run):
        path.write_bytes(b"")
    with pytest.raises(Failure, match="holds no undamaged state"):
        resumable(run, recipe(), "auto", ignore)
    for path in state.saved(run):
        path.unlink()
    (run / checkpoint.FILE).write_bytes(b"a model")
    with pytest.raises(Failure, match="holds a model and no state to resume from"):
        resumable(run, recipe(), "auto", ignore)


def test_run_of_version_1_is_the_same_recipe(tmp_path, recipe):
    """The keys of its recipe had other names; its state is migrated before the recipes are compared."""
    old = {
        "model": {"type": "dvae", "vocab": 8, "hidden": 4, "init": 4, "groups": 2, "blocks": 1, "gain": 0.5,
                  "patches": True},
        "task": {"type": "dvae", "kl": 0.1, "kl_steps": 4, "temperature_steps": 4},
        "data": {"type": "scenes", "glyphs": "shapes", "size": 16, "samples": 400, "validation": 8,
                 "captions": False},
        "optim": {"type": "adamw", "lr": 2e-3, "warmup": 2, "clip_norm": 1.0},
        "train": {"steps": 8, "batch_size": 8, "save_every": "3", "log_every": 2, "validate_every": 4,
                  "preview_every": 4, "preview": 2, "precision": "float32"},
    }  # fmt: skip
    state.save(tmp_path, old, 3, 12, state.gather(*trained()), {}, keep=2)
    (path,) = state.saved(tmp_path)
    as_version_1(path)
    assert resumable(tmp_path, recipe(), "auto", ignore) == path
    with pytest.raises(Failure, match=r"another recipe \(optim\.lr"):
        resumable(tmp_path, recipe(optim={"lr": 1.0}), "auto", ignore)
