import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dalle_cli import files
from dalle_cli.exits import FAILED, USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.files import check_target, remove_temporary_files, write_atomically


def test_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "deep" / "file"
    write_atomically(path, lambda temporary: temporary.write_text("old"))

    def write(temporary):
        temporary.write_text("new")
        assert temporary.parent == path.parent, "on the same file system"
        assert path.read_text() == "old"

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file"]


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("ne")
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_umask_sets_the_mode(tmp_path, umask):
    program = f"""
import os, sys
from pathlib import Path
from dalle_cli.files import write_atomically
os.umask({umask})
def write(temporary):
    temporary.unlink()
    temporary.touch(mode=0o600)  # as safetensors does
write_atomically(Path("file"), write)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_killed_write_keeps_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")
    program = """
import os, signal
from pathlib import Path
from dalle_cli.files import write_atomically
def write(temporary):
    temporary.write_text("ne")
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path("file"), write)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert (tmp_path / "file").read_text() == "old"
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == ["file"]
    (tmp_path / ".hidden").touch()
    remove_temporary_files(tmp_path, {"another file"})
    assert len(os.listdir(tmp_path)) == 3
    remove_temporary_files(tmp_path, {"file"})
    assert sorted(os.listdir(tmp_path)) == [".hidden", "file"]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("folder", USAGE, "is a folder: give a file name"),
        ("file", WOULD_OVERWRITE, "already exists: use --overwrite or another name"),
        ("broken-link", WOULD_OVERWRITE, "already exists"),
        ("file/new", FAILED, "cannot write to this folder: a file has this name; use another folder"),
        ("file/deep/new", FAILED, "a file has this name"),
        ("x" * 300 + "/new", FAILED, "cannot write to this folder: File name too long"),
    ],
)
def test_unwritable_targets_are_refused(tmp_path, name, code, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken-link").symlink_to("nowhere")
    with pytest.raises(Failure) as failure:
        check_target(tmp_path / name, "--out")
    assert failure.value.code == code
    assert str(failure.value).startswith("--out ")
    assert message in str(failure.value)


def test_check_creates_only_the_folder(tmp_path):
    check_target(tmp_path / "deep" / "new", "--out")
    assert os.listdir(tmp_path / "deep") == []
    (tmp_path / "file").write_text("mine")
    check_target(tmp_path / "file", "--out", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_checkpoints_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (Path("run"), Path("checkpoints/other")):
        folder.mkdir(parents=True)
        (folder / files.CHECKPOINT).touch()
    assert files.find_checkpoint("run") == Path("run/model.safetensors")
    assert files.find_checkpoint("run/model.safetensors") == Path("run/model.safetensors")
    assert files.find_checkpoint("other") == Path("checkpoints/other/model.safetensors")
    assert files.find_checkpoint("starter/clip")
    assert files.find_checkpoint("none") is None
    assert files.find_checkpoint("x" * 5000) is None
