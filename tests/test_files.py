import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dalle_cli import files
from dalle_cli.exits import FAILED, USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.files import check_target, remove_left_overs, write_atomically


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "file"
    write_atomically(path, lambda temporary: temporary.write_text("old"))

    def write(temporary):
        temporary.write_text("new")
        assert temporary.parent == path.parent, "on the same file system"
        assert path.read_text() == "old"

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
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
def test_files_have_the_mode_that_the_user_s_umask_gives(tmp_path, umask):
    program = f"""
import os, sys
from pathlib import Path
from dalle_cli import files
from dalle_cli.exits import FAILED, USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.files import check_target, write_atomically
os.umask({umask})
def write(temporary):
    temporary.unlink()
    temporary.touch(mode=0o600)  # as safetensors does
write_atomically(Path("file"), write)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_a_writer_killed_half_way_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")
    program = """
import os, signal
from pathlib import Path
from dalle_cli import files
from dalle_cli.exits import FAILED, USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.files import check_target, write_atomically
def write(temporary):
    temporary.write_text("ne")
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path("file"), write)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert (tmp_path / "file").read_text() == "old"
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == ["file"]
    (tmp_path / ".hidden").touch()
    remove_left_overs(tmp_path, {"another file"})
    assert len(os.listdir(tmp_path)) == 3
    remove_left_overs(tmp_path, {"file"})
    assert sorted(os.listdir(tmp_path)) == [".hidden", "file"]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("folder", USAGE, "is a folder: give the name of a file"),
        ("file", WOULD_OVERWRITE, "is there already: give --overwrite or another name"),
        ("broken-link", WOULD_OVERWRITE, "is there already"),
        ("file/new", FAILED, "cannot write there: a file is in the way; give another place"),
        ("file/deep/new", FAILED, "cannot write there: a file is in the way"),
        ("x" * 300 + "/new", FAILED, "cannot write there: File name too long"),
    ],
)
def test_a_target_that_cannot_be_written_is_known_before(tmp_path, name, code, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken-link").symlink_to("nowhere")
    with pytest.raises(Failure) as failure:
        check_target(tmp_path / name, "--out")
    assert failure.value.code == code
    assert str(failure.value).startswith("--out ")
    assert said in str(failure.value)


def test_a_target_that_can_be_written_gets_its_folder_and_nothing_else(tmp_path):
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
