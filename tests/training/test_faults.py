"""Runs under faults: kill -9, signals under every launcher, processes that die, a full disk."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.launch import _environment as places
from dalle_cli.recipe import to_yaml
from dalle_cli.training import state
from dalle_cli.training.loop import fit
from tests.cli.conftest import dalle, one_line  # noqa: F401  (a fixture)
from tests.training.conftest import RECIPE
from tests.training.test_loop import at_step, weights

KILLS = 17  # of each of three families
PYTHON = [sys.executable, "-m"]
TRAIN = ["dalle_cli", "train-dvae", "--recipe", "mine.yaml", "--run", "run"]
LAUNCHERS = {
    "alone": [*PYTHON, *TRAIN],
    "processes": [*PYTHON, *TRAIN, "--processes", "2"],
    "torchrun": [*PYTHON, "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "--", *TRAIN],
    "accelerate": [*PYTHON, "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", *TRAIN],
}


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


def trained(recipe, run, said):
    """In a process of its own: a run, what it says in a file; on a disk so slow that kills meet files half-written."""
    whole = os.fsync
    os.fsync = lambda file: (time.sleep(0.02), whole(file))
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 2)
    multiprocessing.set_start_method("fork", force=True)  # of its workers
    sys.exit(fit(recipe, Path(run)))


def being_written(run):
    return any(run.glob(".*.tmp")) or any((run / "resume").glob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["dvae", "clip", "dalle"])
def test_kill_9_at_any_moment_changes_no_bit_of_the_weights(tmp_path, families, name):
    """Every other kill waits for the next file that is being written."""
    recipe = {**families[name], "train": {**families[name]["train"], "save_every": "1"}}
    forks = multiprocessing.get_context("forkserver")  # it imports once, and forks
    forks.set_forkserver_preload(["tests.training.test_faults", "torch._dynamo"])  # which optimisers import
    chance = random.Random(name)
    said = tmp_path / "said"

    def start(run):
        child = forks.Process(target=trained, args=(recipe, str(run), str(said)))
        child.start()
        return child

    start(tmp_path / "warm-up").join()
    began = time.monotonic()
    start(tmp_path / "undisturbed").join()
    length = time.monotonic() - began
    expected = checkpoint.read_tensors(state.saved(tmp_path / "undisturbed")[0])
    model = weights(tmp_path / "undisturbed")
    kills, while_writing, attempts, resumed = 0, 0, 0, 0
    while kills < KILLS:
        run = tmp_path / f"run-{attempts}"
        attempts += 1
        while True:
            before = state.saved(run)
            child = start(run)
            child.join(chance.uniform(0, length))
            while kills % 2 and child.is_alive() and not being_written(run):
                time.sleep(0.0005)
            if kills < KILLS and child.is_alive():
                child.kill()
                kills += 1
            child.join()
            while_writing += being_written(run)
            if before and "resuming" in said.read_text():
                resumed += 1
                step = int(before[0].stem.removeprefix("step-"))
                assert f"resuming {run} from step {step}, {8 * step} samples" in said.read_text()
            if child.exitcode == 0:
                break
            assert child.exitcode == -signal.SIGKILL, said.read_text()
        found = checkpoint.read_tensors(state.saved(run)[0])
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
        assert all(torch.equal(weights(run)[key], value) for key, value in model.items())
        assert not being_written(run)
    assert while_writing > 0
    assert resumed > 0
    print(f"{name}: {kills} kills of {attempts} runs of {length:.1f} s, {while_writing} in the middle of writing")


def test_a_run_killed_between_its_last_state_and_its_model_still_leaves_the_model(tmp_path, recipe, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(run, recipe, step, *rest):
        if step == 8:
            raise Killed
        whole(run, recipe, step, *rest)

    whole, run = state.save_model, tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(state, "save_model", kill)
        with pytest.raises(Killed):
            fit(recipe(), run, quiet=True)
    assert checkpoint.metadata(run / checkpoint.FILE)["step"] == 6
    assert fit(recipe(), run, quiet=True) == 0
    assert checkpoint.metadata(run / checkpoint.FILE)["step"] == 8
    averages = {f"ema.{name}": value for name, value in weights(run).items()}
    kept = checkpoint.read_tensors(state.saved(run)[0])
    assert all(torch.equal(kept[name], value) for name, value in averages.items())


# ---- signals and processes that die ----------------------------------------------------------------------------------


@pytest.fixture
def endless(tmp_path):
    """Start a run that would take hours, under a launcher; returned once it trains. Its words go to a pipe."""
    train = {"steps": 1_000_000, "save_every": "1h", "validate_every": 0, "preview_images": 0, "log_every": 1}
    recipe = {**RECIPE, "train": {**RECIPE["train"], **train}}
    (tmp_path / "mine.yaml").write_text(to_yaml(recipe))
    log = tmp_path / "checkpoints" / "run" / "log.jsonl"
    children = []

    def start(command, **environment):
        length = log.stat().st_size if log.exists() else 0
        child = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        children.append(child)
        while child.poll() is None and not (log.exists() and '"loss"' in log.read_text()[length:]):
            time.sleep(0.05)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def ended(child, within):
    """What a launcher's processes said, once all of them are gone: nobody holds the pipe any more.

    within: seconds of a machine with a core for each; ending torch takes a second of one.
    """
    began, crowd = time.monotonic(), os.getloadavg()[0] / len(os.sched_getaffinity(0))
    said = child.communicate(timeout=within * max(1.0, crowd))[0]
    print(f"gone after {time.monotonic() - began:.1f} s, exit code {child.returncode}, load {crowd:.1f}")
    return said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_signal_stops_all_processes_in_good_order(tmp_path, endless, launcher, number):
    """The launchers of others have exit codes of their own: there, the log says that the processes left in order."""
    child = endless(LAUNCHERS[launcher])
    child.send_signal(number)
    said = ended(child, within=10)
    code = 130 if number == signal.SIGINT else 75
    if launcher in ("alone", "processes"):
        assert child.returncode == code, said
    run = tmp_path / "checkpoints" / "run"
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    # SIGUSR1 and accelerate's SIGINT end those launchers, and that is a SIGTERM to their processes.
    assert last["event"] == "end", said
    assert last["code"] == code or launcher in ("torchrun", "accelerate"), said
    assert f"stopped at step {last['step']} of 1000000, state saved" in said
    (saved,) = state.saved(run)
    assert checkpoint.metadata(saved)["step"] == last["step"]
    if number == signal.SIGTERM:
        child = endless(LAUNCHERS[launcher])
        child.send_signal(number)
        assert f"from step {last['step']}, {8 * last['step']} samples" in ended(child, within=10)


def children_of(pid):
    """Processes by RANK, among the descendants of one."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = dict(item.partition("=")[::2] for item in (entry / "environ").read_text().split("\0"))
        except OSError:  # gone by now
            continue
        if parent == pid and "RANK" in variables:
            found[variables["RANK"]] = int(entry.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["processes", "torchrun"])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_when_a_process_dies_the_others_end_with_an_error(endless, launcher, rank):
    child = endless(LAUNCHERS[launcher])
    os.kill(children_of(child.pid)[rank], signal.SIGKILL)
    said = ended(child, within=60)
    assert child.returncode not in (0, 75), said
    assert "SIGKILL" in said


@pytest.mark.slow
def test_without_a_launcher_to_see_it_a_dead_process_is_an_error_of_the_others(endless, tmp_path):
    """As where the processes are on several machines."""
    place = {key: value for key, value in places(2).items() if key not in os.environ}
    other = subprocess.Popen(
        LAUNCHERS["alone"],
        cwd=tmp_path,
        env={**os.environ, **place, "OMP_NUM_THREADS": "1", "RANK": "1", "LOCAL_RANK": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    child = endless(LAUNCHERS["alone"], **place, RANK="0", LOCAL_RANK="0")
    other.kill()
    other.wait()
    said = ended(child, within=60)
    assert child.returncode == 1
    assert "dalle: another process of the run ended or cannot be reached; the same command resumes" in said
    assert "Traceback" not in said


# ---- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB for the runs; and what fills and clears it."""
    disk = tmp_path / "checkpoints"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")

    def fill(room):
        """Leave `room` bytes."""
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_bsize - room))

    yield fill
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("room", [0, 8192])
def test_a_disk_that_is_full_costs_only_what_is_not_saved(tmp_path, recipe, dalle, small_disk, monkeypatch, room):  # noqa: F811
    """room: bytes left when the second state is to be saved; the log and half a state find place in 8192."""
    (tmp_path / "mine.yaml").write_text(to_yaml(recipe(train={"preview_images": 0, "log_every": 3})))
    run = tmp_path / "checkpoints" / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: small_disk(room))
        full = dalle("train-dvae", "--recipe", "mine.yaml", "--run", "run", "-q")
    assert full.code == 1
    assert one_line(full.err), full.err
    assert "No space left" in full.err
    (saved,) = state.saved(run)
    assert checkpoint.metadata(saved)["step"] == 3
    assert checkpoint.read_tensors(saved)
    assert checkpoint.metadata(run / checkpoint.FILE)["step"] == 3
    assert not being_written(run)
    (tmp_path / "checkpoints" / "filler").unlink()
    again = dalle("train-dvae", "--recipe", "mine.yaml", "--run", "run")
    assert again.code == 0
    assert "from step 3" in again.err
    fit(recipe(train={"preview_images": 0}), tmp_path / "undisturbed", quiet=True)
    assert all(torch.equal(weights(run)[name], value) for name, value in weights(tmp_path / "undisturbed").items())
