import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from dalle_cli import checkpoint, images
from dalle_cli import recipe as recipes
from dalle_cli.exits import Failure
from dalle_cli.registry import RecipeError
from dalle_cli.tasks.dvae import DVAETask
from dalle_cli.text.learn import learn
from dalle_cli.training import optim, ranks, state
from dalle_cli.training.loop import fit
from dalle_cli.training.options import check
from tests.tasks.conftest import INPAINT, LOW_RES, TEXT, UNET


def weights(run):
    return checkpoint.read_tensors(run / checkpoint.FILE)


def log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def at_step(monkeypatch, step, act):
    """Do something in the middle of a step: where its learning rate is asked for."""
    whole = optim.lr_at

    def asked(options, now, steps):
        if now == step:
            act()
        return whole(options, now, steps)

    monkeypatch.setattr(optim, "lr_at", asked)


class Killed(BaseException):
    """Ends a run where it stands, as kill -9 does: nothing catches it."""


def kill():
    raise Killed


@pytest.fixture
def undisturbed(tmp_path, recipe):
    run = tmp_path / "undisturbed"
    assert fit(recipe(), run, quiet=True) == 0
    return weights(run)


def test_a_run_leaves_a_model_a_log_and_pictures(tmp_path, recipe):
    run = tmp_path / "run"
    assert fit(recipe(), run, quiet=True) == 0
    about = checkpoint.metadata(run / checkpoint.FILE)
    assert (about["step"], about["samples"], about["recipe"]) == (8, 64, recipe())
    lines = log(run)
    assert [line.get("event") for line in lines] == [
        "start", "validation", None, None, "validation", None, None, "validation", "end",
    ]  # fmt: skip
    steps = [line for line in lines if "event" not in line]
    assert [line["step"] for line in steps] == [2, 4, 6, 8]
    assert steps[-1]["samples"] == 64
    assert {"loss", "likelihood", "psnr", "lr", "samples_per_s", "wait", "memory_gib"} <= steps[0].keys()
    assert images.decode(run / "samples" / "step-000000008.png").size[1] >= 32  # original above reconstruction
    assert [path.name for path in state.saved(run)] == ["step-000000008.safetensors", "step-000000006.safetensors"]
    assert checkpoint.load(str(run), "dvae").model.vocab_size == 8


@pytest.mark.parametrize("step", [2, 5, 7])
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path, recipe, undisturbed, monkeypatch, step):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, step, kill)
        with pytest.raises(Killed):
            fit(recipe(), run, quiet=True)
    assert fit(recipe(), run, quiet=True) == 0
    found = weights(run)
    assert all(torch.equal(found[name], value) for name, value in undisturbed.items())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, recipe, undisturbed, monkeypatch, capsys, number, code):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: os.kill(os.getpid(), number))
        assert fit(recipe(), run) == code
    assert "stopped at step 5 of 8, state saved" in capsys.readouterr().err
    assert checkpoint.metadata(run / checkpoint.FILE)["step"] == 5
    assert fit(recipe(), run) == 0
    assert "from step 5, 40 samples" in capsys.readouterr().err
    found = weights(run)
    assert all(torch.equal(found[name], value) for name, value in undisturbed.items())


def test_time_that_is_up_stops_in_good_order(tmp_path, recipe):
    assert fit(recipe(), tmp_path / "run", max_time="0s", quiet=True) == 75
    assert checkpoint.metadata(tmp_path / "run" / checkpoint.FILE)["step"] == 1


def test_a_torn_state_is_passed_over(tmp_path, recipe, undisturbed, capsys):
    run = tmp_path / "run"
    fit(recipe(train={"keep_last": 3}), run, quiet=True)
    newest = state.saved(run)[0]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert fit(recipe(train={"keep_last": 3}), run) == 0
    said = capsys.readouterr().err
    assert f"{newest.name}: cut short or padded" in said
    assert "from step 6" in said
    found = weights(run)
    assert all(torch.equal(found[name], value) for name, value in undisturbed.items())


def test_another_recipe_is_refused_until_it_is_asked_for(tmp_path, recipe, capsys):
    run = tmp_path / "run"
    fit(recipe(), run, quiet=True)
    longer = recipe(train={"steps": 10}, optim={"lr": 1e-3})
    with pytest.raises(Failure, match=r"another recipe .*optim\.lr.*0\.002.*0\.001"):
        fit(longer, run, quiet=True)
    assert fit(longer, run, resume="force") == 0
    assert "changed since the saved state: " in capsys.readouterr().err
    assert checkpoint.metadata(run / checkpoint.FILE)["step"] == 10


def test_what_only_looks_on_changes_no_weights(tmp_path, recipe, undisturbed):
    quiet = {"log_every": 5, "save_every": "1h", "validate_every": 0, "preview_every": 0}
    fit(recipe(train=quiet, data={"num_workers": 1}), tmp_path / "run", quiet=True)
    found = weights(tmp_path / "run")
    assert all(torch.equal(found[name], value) for name, value in undisturbed.items())


def test_accumulated_parts_train_as_one_batch(tmp_path, recipe, undisturbed):
    """But for the k-means of the start, which sees the same batches, and for the order of sums."""
    fit(recipe(train={"grad_accum_steps": 2}), tmp_path / "run", quiet=True)
    found = weights(tmp_path / "run")
    for name, value in undisturbed.items():
        torch.testing.assert_close(found[name], value, rtol=0.02, atol=2e-3)


def test_a_loss_that_is_not_finite_is_skipped_and_then_stops_the_run(tmp_path, recipe, monkeypatch, capsys):
    whole = DVAETask.forward

    def broken(self, batch, step):
        loss, logs = whole(self, batch, step)
        return (loss * float("nan") if step >= 4 and self.model.training else loss), logs

    monkeypatch.setattr(DVAETask, "forward", broken)
    run = tmp_path / "run"
    with pytest.raises(Failure, match=r"not finite in step 6 with samples scene-\d+.*over train\.max_skipped_steps=2"):
        fit(recipe(train={"max_skipped_steps": 2}), run)
    assert "step 4: the loss is not finite; skipped. Samples: scene-" in capsys.readouterr().err
    assert all(value.isfinite().all() for value in weights(run).values())
    assert [line["step"] for line in log(run) if line.get("event") == "not finite"] == [4, 5, 6]


@pytest.mark.parametrize("broken_from", [0, 3])
def test_gradients_that_overflow_fp16_for_ever_stop_the_run(tmp_path, recipe, monkeypatch, broken_from):
    """Here without fp16, which CPUs have not: the loss scale alone is what skips steps."""
    whole, made = DVAETask.forward, ranks.accelerator

    def broken(self, batch, step):
        loss, logs = whole(self, batch, step)
        if step >= broken_from and self.model.training:
            weight = next(self.model.parameters()).sum()
            loss = loss + 0 * (weight - weight.detach()).sqrt()  # 0, and a gradient that is not a number
        return loss, logs

    def scaled(*args):
        layout = made(*args)
        layout.scaler = torch.amp.GradScaler("cpu")
        return layout

    monkeypatch.setattr(ranks, "accelerator", scaled)
    longer = recipe(train={"steps": 80, "validate_every": 0, "preview_every": 0, "save_every": "1"})
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(DVAETask, "forward", broken)
        with pytest.raises(Failure, match=r"overflowed fp16 in 51 steps in a row, the last with samples scene-"):
            fit(longer, run, quiet=True)
    assert len([line for line in log(run) if line.get("grad_norm")]) == min(broken_from, 2)
    before = checkpoint.read_tensors(state.saved(run)[0])
    assert all(value.isfinite().all() for name, value in before.items() if name.startswith(("model.", "ema.")))


def test_skipped_steps_leave_the_state_before_them_as_it_was(tmp_path, recipe, monkeypatch):
    constant = {"optim": {"schedule": "constant"}}
    fit(recipe(**constant, train={"steps": 4}), tmp_path / "four", quiet=True)
    whole = DVAETask.forward

    def broken(self, batch, step):
        loss, logs = whole(self, batch, step)
        return (loss * float("inf") if step >= 4 and self.model.training else loss), logs

    monkeypatch.setattr(DVAETask, "forward", broken)
    with pytest.raises(Failure, match="holds the state before"):
        fit(recipe(**constant, train={"max_skipped_steps": 2}), tmp_path / "run", quiet=True)
    four, newest = state.saved(tmp_path / "four")[0], state.saved(tmp_path / "run")[0]
    assert checkpoint.metadata(newest)["step"] == 6, "after two skipped steps"
    before, after = checkpoint.read_tensors(four), checkpoint.read_tensors(newest)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_run_starts_from_the_weights_of_another(tmp_path, recipe):
    first, second = tmp_path / "first", tmp_path / "second"
    fit(recipe(), first, quiet=True)
    more = {"train": {"init_from": str(first), "steps": 2}, "task": {"train_encoder": False}}
    fit(recipe(**more), second, quiet=True)
    before, after = weights(first), weights(second)
    for name, value in before.items():
        assert torch.equal(after[name], value) == name.startswith("encoder."), name


def test_weights_that_do_not_fit_are_refused_before_anything_is_built(tmp_path, recipe, monkeypatch):
    first = tmp_path / "first"
    fit(recipe(), first, quiet=True)
    monkeypatch.setattr(checkpoint, "compose", None)
    with pytest.raises(checkpoint.CheckpointError, match=r"train\.init_from: .* does not fit the model: decoder"):
        fit(recipe(model={"n_hid": 8}, train={"init_from": str(first)}), tmp_path / "second", quiet=True)


def test_a_killed_decoder_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """With all that is random in it: steps, noise, captions left out, regions erased, small pictures, dropout."""
    learn(["a red circle", "a blue star"], 260, "glide").save(tmp_path / "words.json")
    conditions = {"text": TEXT, "inpaint": INPAINT, "low_res": LOW_RES}
    decoder = check(
        {
            "tokenizer": {"type": "glide", "path": str(tmp_path / "words.json")},
            "model": UNET | {"conditions": conditions, "dropout": 0.2},
            "task": {"type": "decoder", "size": 8, "text_drop_prob": 0.3, "max_noise": 0.2, "max_blur": 0.5},
            "data": {
                "type": "scenes",
                "objects": "shapes",
                "size": 8,
                "samples": 100,
                "val_samples": 4,
                "num_workers": 0,
            },
            "optim": {"lr": 1e-3},
            "train": {
                "steps": 6,
                "batch_size": 4,
                "save_every": "2",
                "log_every": 2,
                "preview_images": 2,
                "precision": "float32",
            },
        }
    )
    assert fit(decoder, tmp_path / "undisturbed", quiet=True) == 0
    with monkeypatch.context() as patch:
        at_step(patch, 5, kill)
        with pytest.raises(Killed):
            fit(decoder, tmp_path / "run", quiet=True)
    assert fit(decoder, tmp_path / "run", quiet=True) == 0
    found = weights(tmp_path / "run")
    assert all(torch.equal(found[name], value) for name, value in weights(tmp_path / "undisturbed").items())
    assert {"mse", "bound"} <= log(tmp_path / "run")[1].keys()
    assert (tmp_path / "run" / "samples" / "step-000000006.png").exists()


def test_a_wrong_recipe_touches_nothing(tmp_path, recipe):
    with pytest.raises(RecipeError, match=r"train\.steps"):
        fit(recipe() | {"train": {"steps": 0, "batch_size": 8}}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


STARTED = """
import json, multiprocessing, sys
from pathlib import Path
from dalle_cli.training.loop import fit
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    sys.exit(fit(json.loads(Path("recipe.json").read_text()), Path(sys.argv[1]), quiet=True))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_any_start_method_train_the_same_weights(tmp_path, method):
    (tmp_path / "start.py").write_text(STARTED)
    node = recipes.load("tiny", "clip", [
        "tokenizer.path=starter", "model.text.vocab_size=1026", "model.image.size=16", "model.embed_dim=8",
        "model.image.width=16", "model.image.depth=1", "model.text.width=16", "model.text.depth=1", "data.size=16",
        "data.num_workers=2", "data.val_samples=4", "train.steps=3", "train.batch_size=8", "train.precision=float32",
    ], checkpoint.accepted_arguments)  # fmt: skip
    node = check(node)
    (tmp_path / "recipe.json").write_text(json.dumps(node))
    done = subprocess.run([sys.executable, "start.py", method], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fit({**node, "data": {**node["data"], "num_workers": 0}}, tmp_path / "serial", quiet=True)
    expected = weights(tmp_path / "serial")
    for name, value in weights(tmp_path / method).items():
        assert torch.equal(value, expected[name])
