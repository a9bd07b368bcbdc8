import os

import numpy as np
import pytest
from PIL import Image

from dalle_cli.exits import FAILED, USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.generate.requests import GenerationRequest
from dalle_cli.generate.sheets import check_sheet, original_cell, result_cells, save_grid, save_rows, save_sheet

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Results of images of one color each, 32 px."""
    monkeypatch.chdir(tmp_path)
    found = []
    for index, (color, prompt) in enumerate((("red", "a cat"), ("blue", "a cat"), ("red", "a dog"))):
        Image.new("RGB", (32, 32), color).save(f"{index}.png")
        found.append({"index": index, "path": f"{index}.png", "prompt": prompt, "score": 0.7541 - 0.1 * index})
    return found


def blocks(path, color):
    page = np.asarray(Image.open(path))
    return int((page == color).all(axis=2).sum()) / 128**2


@pytest.fixture
def rows(monkeypatch):
    """The rows that were laid out."""
    found = []
    monkeypatch.setattr("dalle_cli.contact_sheet.save_pages", lambda rows, path: found.extend(rows))
    return found


def test_prompts_have_rows_of_their_own(images, rows):
    save_sheet("s.png", images)
    assert [(row.title, [caption for _, caption in row.cells]) for row in rows] == [
        ("a cat", ["#1 · 0.754", "#2 · 0.654"]), ("a dog", ["#1 · 0.554"]),
    ]  # fmt: skip


def test_prompts_of_one_image_share_a_grid(images, rows):
    save_sheet("s.png", images[1:])
    assert [caption for row in rows for _, caption in row.cells] == ["#1 · 0.654 a cat", "#1 · 0.554 a dog"]


def test_one_prompt_is_the_title(images, rows):
    save_sheet("s.png", images[:2], names=True)
    (row,) = rows
    assert (row.title, [caption for _, caption in row.cells]) == ("a cat", ["#1 · 0.754 0.png", "#2 · 0.654 1.png"])


def test_without_scores_the_number_of_the_file_is_shown(images, rows):
    save_sheet("s.png", [{key: value for key, value in one.items() if key != "score"} for one in images[:2]])
    assert [caption for _, caption in rows[0].cells] == ["000000", "000001"]


def test_failed_results_are_left_out(images):
    save_sheet("s.png", [*images, {"prompt": "a cat", "error": "no"}])
    assert (blocks("s.png", RED), blocks("s.png", BLUE)) == (2, 1)
    save_sheet("none.png", [{"prompt": "a cat", "error": "no"}])
    assert not os.path.exists("none.png")


def test_rows_hold_the_original_and_its_results(images):
    request = GenerationRequest(None, None, {"image": "1.png"})
    cells = result_cells([images[0], {"error": "no"}], lambda result: f"score {result['score']:.2f}")
    assert cells == [("0.png", "score 0.75"), (None, "failed")]
    save_rows("s.png", [[original_cell(request), *cells]])
    assert (blocks("s.png", RED), blocks("s.png", BLUE)) == (1, 1)
    assert original_cell(request)[1] == "original: 1.png"
    assert original_cell(GenerationRequest(None, None, {"image": "gone.png"})) == (None, "gone.png: cannot be read")


def test_a_grid_of_nothing_is_not_written(images):
    save_grid("s.png", [])
    assert not os.path.exists("s.png")
    save_grid("s.png", [("0.png", "")])
    assert blocks("s.png", RED) == 1


def test_sheets_that_cannot_be_written(images, tmp_path):
    (tmp_path / "old.png").touch()
    for path, code in (("old.png", WOULD_OVERWRITE), ("new.jpg", USAGE), ("old.png/new.png", FAILED)):
        with pytest.raises(Failure, match="--sheet") as failure:
            check_sheet(tmp_path / path)
        assert failure.value.code == code
    check_sheet(tmp_path / "old.png", overwrite=True)
    with pytest.raises(Failure, match=r"--sheet x\.png: gone\.png: missing file"):
        save_sheet("x.png", [{"path": "gone.png"}])
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(Failure, match=r"folder\.png: cannot be written: Is a directory"):
        save_sheet("folder.png", images)
