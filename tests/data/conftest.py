import io
import tarfile

import pytest
from PIL import Image


def picture(colour="red", size=(16, 16), kind="PNG", mode="RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind)
    return file.getvalue()


def colour_of(number: int) -> tuple[int, int, int]:
    """A colour that says which sample this is."""
    return number // 65536 % 256, number // 256 % 256, number % 256


def number_of(image) -> int:
    """The number that `colour_of` put into a picture."""
    red, green, blue = image.getpixel((0, 0))
    return red * 65536 + green * 256 + blue


def write_tar(path, members, form=tarfile.PAX_FORMAT):
    """members: (name, bytes), or a TarInfo for one without data."""
    with tarfile.open(path, "w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                name, data = member
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def pairs(numbers):
    """Members of a shard: one picture and one caption for each number."""
    return [
        member
        for number in numbers
        for member in (
            (f"{number:06d}.png", picture(colour_of(number))),
            (f"{number:06d}.txt", f"number {number}".encode()),
        )
    ]


@pytest.fixture
def photos(tmp_path):
    """A folder of 40 numbered pictures with captions."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:03d}.png").write_bytes(picture(colour_of(number)))
        (folder / f"{number:03d}.txt").write_text(f"number {number}")
    return folder
