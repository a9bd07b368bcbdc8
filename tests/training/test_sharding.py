import json
import shutil

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from dalle_cli import checkpoint
from dalle_cli.registry import RecipeError
from dalle_cli.tasks.base import Task
from dalle_cli.training import sharding, state
from dalle_cli.training.ema import EMA
from dalle_cli.training.loop import fit
from dalle_cli.training.optim import Optim, build
from tests.training.conftest import curve, run_in_two

FAMILIES = ("dvae", "clip", "dalle", "diffusion-prior", "ar-prior", "unet")


class Toy(Task):
    """Blocks, a rest, a scalar, and a frozen companion that is called in its own way."""

    def __init__(self):
        torch.manual_seed(0)
        model = nn.Module()
        model.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        model.out = nn.Linear(3, 5)
        model.scale = nn.Parameter(torch.tensor(0.5))
        super().__init__(model)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)

    def forward(self, batch, step):
        x = batch @ self.frozen.weight
        for block in self.model.blocks:
            x = block(x).relu()
        return (self.model.scale * self.model.out(x)).square().mean(), {}


@pytest.fixture
def layout():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Accelerator(cpu=True)
    dist.destroy_process_group()


def step(task, wrapped, optimizer, ema, layout):
    loss, _ = wrapped(torch.ones(2, 3), 0)
    layout.backward(loss)
    norm = sharding.whole(layout.clip_grad_norm_(task.parameters(), 0.1))
    optimizer.step()
    optimizer.zero_grad()
    ema.update(task.model, 0)
    return loss.item(), norm.item()


def test_a_sharded_step_is_that_of_whole_tensors_and_so_is_its_state(layout, tmp_path):
    found = []
    for sharded in (False, True):
        task = Toy()
        wrapped = sharding.shard(task, layout) if sharded else task
        optimizer, ema = build(Optim(1e-2, weight_decay=0.1), task.model), EMA(task.model, 0.9)
        numbers = step(task, wrapped, optimizer, ema, layout)
        kinds = {name: isinstance(value, DTensor) for name, value in task.model.state_dict().items()}
        assert kinds == {name: sharded and name != "scale" for name in kinds}
        tensors = state.gather(task.model, ema, optimizer)
        found.append((numbers, tensors, (task.model, ema, optimizer)))
    (numbers, whole, _), (same, sharded, parts) = found
    assert same == pytest.approx(numbers)
    assert sharded.keys() == whole.keys()
    assert {"optim.0.exp_avg", "ema.scale"} <= whole.keys()
    for name, value in whole.items():
        assert not isinstance(sharded[name], DTensor)
        torch.testing.assert_close(sharded[name], value)

    first = Toy()  # and back: into whole tensors, and into sharded ones that have moved on
    target = (first.model, EMA(first.model, 0.9), build(Optim(1e-2), first.model))
    path = state.save(tmp_path, {}, 1, 2, sharded, {}, keep=1)
    for model, ema, optimizer in (target, parts):
        with torch.no_grad():
            sharding.local(model.out.weight).add_(1)
        assert state.restore(path, model, ema, optimizer)[:2] == (1, 2)
        for name, value in state.gather(model, ema, optimizer).items():
            assert torch.equal(value, whole[name]), name


def test_who_does_not_keep_a_state_holds_none():
    task = Toy()
    assert state.gather(task.model, EMA(task.model, 0.9), build(Optim(1e-2), task.model), keep=False) == {}


def test_accelerate_may_ask_for_it(monkeypatch):
    assert sharding.wanted(True)
    assert not sharding.wanted(False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert sharding.wanted(False)
    assert not sharding.wanted(False), "Accelerate must not wrap as well"


@pytest.mark.parametrize("other", [{"compile": True}, {"precision": "fp16"}])
def test_what_it_does_not_go_with_is_refused(recipe, tmp_path, other):
    with pytest.raises(RecipeError, match=r"train\.fsdp: does not work with"):
        fit(recipe() | {"train": {**recipe()["train"], "fsdp": True, **other}}, tmp_path / "run")


@pytest.fixture(scope="module")
def runs(families, tmp_path_factory):
    """Every family by one process, by two, by two that share; then some continued by others. Run folders by name."""
    folder = tmp_path_factory.mktemp("runs")
    jobs = []
    for name, recipe in families.items():
        assert fit(recipe, folder / "one" / name, quiet=True) == 0
        sharded = {**recipe, "train": {**recipe["train"], "fsdp": True}}
        jobs.append({"recipe": recipe, "run": folder / "two" / name})
        jobs.append({"recipe": sharded, "run": folder / "sharded" / name})
        if name == "clip":
            halved(folder / "one" / name, folder / "one-sharded" / name)
            jobs.append({"recipe": sharded, "run": folder / "one-sharded" / name})
    broken = {**families["dvae"], "train": {**families["dvae"]["train"], "max_skipped_steps": 1}}
    jobs.append({"recipe": broken, "run": folder / "broken" / "dvae", "broken": 4})
    assert run_in_two(folder, jobs) == 0
    for before in ("two", "sharded"):
        halved(folder / before / "clip", folder / f"{before}-one" / "clip")
    return folder


def halved(run, copy):
    """A run as if it had been killed after the state of step 3."""
    (copy / "resume").mkdir(parents=True)
    shutil.copy(run / "resume" / "step-000000003.safetensors", copy / "resume")


def same_state(run, other):
    found, expected = (checkpoint.read_tensors(state.saved(one)[0]) for one in (run, other))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-3, atol=1e-4), name


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("layout", ["two", "sharded"])
def test_two_processes_train_like_one(runs, layout, name):
    """Equal curves and epochs, equal weights, averages and moments; the dVAE's shards do not divide among the two."""
    one, two = curve(runs / "one" / name), curve(runs / layout / name)
    assert [line[:3] for line in two] == [line[:3] for line in one]
    assert [line[3] for line in two] == pytest.approx([line[3] for line in one], rel=1e-4)
    assert len(one) == 6
    same_state(runs / layout / name, runs / "one" / name)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["one-sharded", "two-one", "sharded-one"])
def test_a_run_goes_on_with_another_number_of_processes(runs, families, how, capsys):
    if how.endswith("-one"):
        assert fit(families["clip"], runs / how / "clip") == 0
        said = capsys.readouterr().err
        assert "from step 3, 24 samples" in said
        assert "changed since the saved state: 2 processes on cpu, precision float32 -> 1 process on cpu" in said
    assert curve(runs / how / "clip")[0][:2] == (4, 32)
    assert [line[3] for line in curve(runs / how / "clip")] == pytest.approx(
        [line[3] for line in curve(runs / "one" / "clip")[3:]], rel=1e-4
    )
    same_state(runs / how / "clip", runs / "one" / "clip")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_sharded_run_saves_an_ordinary_checkpoint(runs, name):
    task = checkpoint.load(str(runs / "sharded" / name), name)
    kept = checkpoint.read_tensors(runs / "one" / name / checkpoint.FILE)
    for key, value in task.model.state_dict().items():
        torch.testing.assert_close(value, kept[key], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_loss_of_one_process_that_is_not_finite_is_skipped_by_both(runs):
    lines = [json.loads(line) for line in (runs / "broken" / "dvae" / "log.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if line.get("event") == "not finite"]
    assert line["step"] == 4
    assert len(line["keys"]) == 4, "those of the process alone"
    tensors = checkpoint.read_tensors(state.saved(runs / "broken" / "dvae")[0])
    assert all(value.isfinite().all() for value in tensors.values())
