import os
import stat
import subprocess
import sys

import pytest

from dalle_cli.files import remove_left_overs, write_atomically


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
from dalle_cli.files import write_atomically
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
    remove_left_overs(tmp_path, {"another file"})
    assert len(os.listdir(tmp_path)) == 3
    remove_left_overs(tmp_path, {"file"})
    assert sorted(os.listdir(tmp_path)) == [".hidden", "file"]
