import numpy as np
from PIL import Image

from dalle_cli.generate import sheets as module
from dalle_cli.generate.requests import GenerationRequest
from dalle_cli.generate.sheets import original_cell, result_cells, save_rows


def test_rows_of_a_sheet_are_filled_up(tmp_path, monkeypatch):
    red, blue = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "red.png")
    results = [{"path": str(tmp_path / "red.png"), "mark": 1}, {"error": "no"}]
    rows = [[(blue, "blue"), *result_cells(results, lambda one: f"mark {one['mark']}")], [(blue, "")]]
    save_rows(str(tmp_path / "sheet.png"), rows)
    page = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    assert (page == (255, 0, 0)).all(axis=2).sum() == 40 * 40
    assert (page == (0, 0, 255)).all(axis=2).sum() == 2 * 40 * 40
    assert page.shape[1] == 3 * 100 + 4
    save_rows(str(tmp_path / "sized.png"), [[(blue.resize((8, 8)), "given"), (red, "drawn")]])
    page = np.asarray(Image.open(tmp_path / "sized.png")).astype(int)
    assert (page == (0, 0, 255)).all(axis=2).sum() == (page == (255, 0, 0)).all(axis=2).sum() == 40 * 40
    save_rows(str(tmp_path / "none.png"), [])
    assert not (tmp_path / "none.png").exists()
    monkeypatch.setattr(module, "SHEET_PIXELS", 6 * 400)
    save_rows(str(tmp_path / "small.png"), rows)
    assert Image.open(tmp_path / "small.png").size[0] < 3 * 30
    assert original_cell(GenerationRequest(None, None, {"image": str(tmp_path / "red.png")}), results)[0].size == (
        40,
        40,
    )
    assert original_cell(GenerationRequest(None, None, {"image": "gone.png"}), results) == ("", "cannot be read")
