import pytest

from dalle_cli import images
from dalle_cli.exits import Failure
from dalle_cli.generate.image_requests import caption_of, readable_requests
from dalle_cli.generate.metadata import Origin, chunks
from dalle_cli.generate.requests import GenerationRequest, PlannedImage
from tests.fixtures.miniatures import noise


def test_what_can_be_worked_on(tmp_path):
    noise(1).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("x")
    good, bad = (GenerationRequest(None, None, {"image": str(tmp_path / name)}) for name in ("a.png", "b.png"))
    failed = GenerationRequest("a", None, {"error": "was not drawn"})
    assert readable_requests([failed, bad, good]) == [bad, good]
    with pytest.raises(images.BadImage, match=r"b\.png: not an image"):
        readable_requests([failed, bad])
    with pytest.raises(Failure, match="every line carries the error"):
        readable_requests([failed])


def test_what_a_picture_shows_is_said_by_its_line_or_its_file(tmp_path):
    origin = Origin("sample", "tiny", {}, {})
    drawn = noise(1)
    images.save_png(
        drawn, tmp_path / "a.png", chunks(origin, PlannedImage(0, 0, 0, GenerationRequest("a star")), drawn.size)
    )
    noise(2).save(tmp_path / "b.jpg")
    a, b = ({"image": str(tmp_path / name)} for name in ("a.png", "b.jpg"))
    assert caption_of(GenerationRequest("a ring", None, a)) == "a ring"
    assert caption_of(GenerationRequest(None, None, a)) == "a star"
    assert caption_of(GenerationRequest(None, None, b)) is None
