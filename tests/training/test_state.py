import pytest
import torch
from torch import nn

from dalle_cli import checkpoint
from dalle_cli.checkpoint import CheckpointError
from dalle_cli.training import state
from dalle_cli.training.ema import EMA

RECIPE = {"model": {"type": "dvae"}}


def trained(steps=3):
    torch.manual_seed(steps)
    model = nn.Linear(3, 2)
    ema = EMA(model, 0.9)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(steps):
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        ema.update(model, step)
    return model, ema, optimizer


def test_everything_comes_back(tmp_path):
    model, ema, optimizer = trained()
    path = state.save(tmp_path, RECIPE, 3, 12, state.gather(model, ema, optimizer), {"skipped": 2}, keep=2)
    other, other_ema, other_optimizer = trained(1)
    assert state.restore(path, other, other_ema, other_optimizer) == (3, 12, {"skipped": 2})
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(other_ema.average["weight"], ema.average["weight"])
    for ours, theirs in zip(other_optimizer.state_dict()["state"].values(), optimizer.state_dict()["state"].values()):
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_old_states_go_once_the_new_one_is_there(tmp_path):
    tensors = state.gather(*trained())
    for step in (1, 2, 30):
        state.save(tmp_path, RECIPE, step, step, tensors, {}, keep=2)
    assert [path.name for path in state.saved(tmp_path)] == [
        "step-000000030.safetensors",
        "step-000000002.safetensors",
    ]


def test_a_damaged_later_state_does_not_push_the_new_one_out(tmp_path):
    tensors = state.gather(*trained())
    for step in (1, 2):
        last = state.save(tmp_path, RECIPE, step, step, tensors, {}, keep=2)
    last.write_bytes(last.read_bytes()[:50])
    assert state.newest(tmp_path)[0] is not None
    new = tmp_path / "resume" / "step-000000001.safetensors"
    assert state.save(tmp_path, RECIPE, 1, 1, tensors, {}, keep=1) == new
    assert state.saved(tmp_path) == [new]


def test_the_newest_whole_state_is_found_and_the_others_named(tmp_path):
    tensors = state.gather(*trained())
    paths = [state.save(tmp_path, RECIPE, step, step, tensors, {}, keep=9) for step in (1, 2, 3)]
    flipped = bytearray(paths[2].read_bytes())
    flipped[-1] ^= 1
    paths[2].write_bytes(flipped)
    paths[1].write_bytes(paths[1].read_bytes()[:50])
    left_over = tmp_path / "resume" / ".step-4.123.tmp"
    left_over.write_bytes(b"half")
    found, passed_over = state.newest(tmp_path)
    assert found == paths[0]
    assert [line.partition(": ")[0] for line in passed_over] == [str(paths[2]), str(paths[1])]
    assert not left_over.exists()


def test_a_state_of_a_newer_format_is_not_passed_over(tmp_path, monkeypatch):
    tensors = state.gather(*trained())
    state.save(tmp_path, RECIPE, 1, 1, tensors, {}, keep=9)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
        state.save(tmp_path, RECIPE, 2, 2, tensors, {}, keep=9)
    with pytest.raises(CheckpointError, match=r"step-000000002.* written by a newer dalle .* update dalle"):
        state.newest(tmp_path)


def test_a_state_of_another_model_is_refused(tmp_path):
    path = state.save(tmp_path, RECIPE, 3, 12, state.gather(*trained()), {}, keep=2)
    other = nn.Linear(4, 2)
    with pytest.raises(CheckpointError, match="does not fit the recipe"):
        state.restore(path, other, EMA(other, 0.9), torch.optim.AdamW(other.parameters()))


def test_a_state_is_a_checkpoint_without_pickles(tmp_path):
    path = state.save(tmp_path, RECIPE, 3, 12, state.gather(*trained()), {}, keep=2)
    assert checkpoint.metadata(path)["step"] == 3
    assert {"model.weight", "ema.bias", "optim.0.exp_avg", "optim.0.step"} <= checkpoint.read_tensors(path).keys()
