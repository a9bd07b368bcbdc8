"""The Python blocks of the documentation run as they are written."""

import ast
from pathlib import Path

import pytest

from tests.fixtures.docs import PAGE_IDS, PAGES, ROOT, blocks

PYTHON = (ROOT / "docs/python.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", blocks(PYTHON, "python"), ids=lambda block: block.splitlines()[-1])
def test_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/python.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_blocks_are_valid_python(path: Path):
    for block in blocks(path.read_text(encoding="utf-8"), "python"):
        ast.parse(block)


def test_there_are_blocks():
    assert len(blocks(PYTHON, "python")) >= 4
