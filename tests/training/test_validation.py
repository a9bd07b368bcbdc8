import json

import pytest

from dalle_cli.data import loader
from dalle_cli.training import validation
from dalle_cli.training.loop import fit


def records(*losses):
    return [{"event": "validation", "step": 100 * number, "loss": loss} for number, loss in enumerate(losses)]


def test_best_step_is_named():
    assert validation.summary(records(9.0, 3.0, 2.0)) == "best validation loss 2 at step 200"


def test_rising_validation_loss_is_a_warning_with_the_remedy():
    line = validation.summary(records(9.0, 2.0, 3.0))
    assert line.startswith("warning: validation got worse: loss 2 at step 100, 3 at step 200; the model overfits")
    assert "train.steps=100" in line


@pytest.mark.parametrize("losses", [(), (5.0,), (2.0, 2.01)])
def test_noise_and_single_values_are_no_warning(losses):
    line = validation.summary(records(*losses))
    assert line is None or not line.startswith("warning")


def test_negative_losses_are_compared_too():
    assert validation.summary(records(0.0, -5.0, -4.0)).startswith("warning")
    assert validation.summary(records(0.0, -4.0, -5.0)) == "best validation loss -5 at step 200"


def test_chance_level_stands_next_to_the_value():
    line = validation.describe(0, {"loss": 4.8, "accuracy": 0.01, "chance_accuracy": 1 / 128})
    assert line == "step 0: validation loss 4.8  accuracy 0.01 (chance 0.007812)"


def test_held_out_images_are_counted():
    data = loader.build({"type": "scenes", "objects": "shapes", "size": 16, "samples": 280, "val_samples": 14})
    assert validation.held_out_line(data) == "14 of 280 samples are held out for validation"
    data = loader.build({"type": "scenes", "objects": "shapes", "size": 16, "samples": 280, "val_samples": 0})
    assert "no samples are held out" in validation.held_out_line(data)


def test_run_is_validated_before_its_first_step_and_leaves_a_curve(tmp_path, recipe, capsys):
    run = tmp_path / "run"
    fit(recipe(train={"steps": 2, "preview_images": 0}, data={"num_workers": 0}), run)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("event") == "validation"] == [0, 2]
    assert (run / "curve.png").is_file()
    told = capsys.readouterr().err
    assert "8 of 400 samples are held out for validation" in told
    assert "step 0: validation loss" in told
    assert "best validation loss" in told
