import json

import pytest

from dalle_cli import images
from dalle_cli.exits import BAD_INPUT, Failure
from dalle_cli.generate.embed import MANIFEST
from dalle_cli.generate.image_requests import (
    caption_of,
    expand_folders,
    group_by_request,
    read_image_requests,
    readable_requests,
)
from dalle_cli.generate.metadata import Origin, chunks
from dalle_cli.generate.requests import GenerationRequest, PlannedImage, PromptError, plan_images
from tests.fixtures.miniatures import noise


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "in" / "deeper"
    inside.mkdir(parents=True)
    noise(0).save(tmp_path / "in" / "b.png")
    noise(1).save(tmp_path / "in" / "a.PNG")
    noise(2).save(inside / "c.webp", lossless=True)
    (inside / "notes.txt").write_text("no image")
    return tmp_path / "in"


def test_folders_are_expanded(folder, tmp_path):
    paths = [str(folder / name) for name in ("a.PNG", "b.png", "deeper/c.webp")]
    line = json.dumps({"path": "x.png", "note": "x" * 5000})
    assert expand_folders(["-", str(folder), "x.png", line]) == ["-", *paths, "x.png", line]
    (tmp_path / "empty").mkdir()
    with pytest.raises(Failure, match=r"empty: no images in this folder \(\.avif") as failure:
        expand_folders([str(tmp_path / "empty")])
    assert failure.value.code == BAD_INPUT


def test_embedded_folder_is_recognized(tmp_path):
    (tmp_path / MANIFEST).write_text("{}")
    (tmp_path / "embeddings-00000.safetensors").touch()
    with pytest.raises(Failure, match=r"CLIP embeddings.*give the folder of the images that were embedded"):
        expand_folders([str(tmp_path)])


def test_requests_of_images(folder):
    path = str(folder / "b.png")
    assert [request.fields for request in read_image_requests([path])] == [{"image": path}]
    assert [request.fields for request in read_image_requests([path], field="path")] == [{"path": path}]
    with pytest.raises(PromptError, match="no file"):
        read_image_requests([str(folder / "gone.png")])


def test_one_readable_image_is_enough(tmp_path):
    noise(1).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("x")
    good, bad = (GenerationRequest(None, None, {"image": str(tmp_path / name)}) for name in ("a.png", "b.png"))
    failed = GenerationRequest("a", None, {"error": "was not generated"})
    assert readable_requests([failed, bad, good]) == [bad, good]
    with pytest.raises(images.BadImage, match=r"b\.png: not an image"):
        readable_requests([failed, bad])
    with pytest.raises(Failure, match="every line carries the error"):
        readable_requests([failed])


def test_captions_come_from_the_line_or_the_file(tmp_path):
    origin, image = Origin("sample", "tiny", {}, {}), noise(1)
    planned = PlannedImage(0, 0, 0, GenerationRequest("a star"))
    images.save_png(image, tmp_path / "a.png", chunks(origin, planned, image.size))
    noise(2).save(tmp_path / "b.jpg")
    a, b = ({"image": str(tmp_path / name)} for name in ("a.png", "b.jpg"))
    assert caption_of(GenerationRequest("a ring", None, a)) == "a ring"
    assert caption_of(GenerationRequest(None, None, a)) == "a star"
    assert caption_of(GenerationRequest(None, None, b)) is None


def test_images_are_grouped_by_request():
    planned = plan_images([GenerationRequest("a"), GenerationRequest("b")], 3)
    assert [[item.index for item in group] for group in group_by_request(planned[1:], 3)] == [[1, 2], [3, 4, 5]]
