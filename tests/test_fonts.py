import io
import struct

import pytest
from PIL import ImageFont

from dalle_cli import fonts


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    caches = (
        fonts.default_font,
        fonts._drawable,
        fonts._font_path,
        fonts._load,
        fonts._default_coverage,
        fonts._installed,
    )
    for cache in caches:
        cache.cache_clear()
    fonts._warned.clear()
    yield
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()
    fonts._warned.clear()


def font_file(*ranges, outlines=b"glyf"):
    """A font of nothing but the tables that say which characters it has."""
    starts, ends = ([*(one[i] for one in ranges), 0xFFFF] for i in (0, 1))
    count = len(starts)
    short = struct.pack(f">HHHHHHH{count}HH{count}H", 4, 0, 0, 2 * count, 0, 0, 0, *ends, 0, *starts)
    cmap = struct.pack(">HHHHI", 0, 1, 3, 1, 12) + short
    head = struct.pack(">IHHHH", 0x10000, 2, 0, 0, 0)
    tables = struct.pack(">4sIII", b"cmap", 0, 44, len(cmap)) + struct.pack(">4sIII", outlines, 0, 0, 0)
    return head + tables + cmap


def test_coverage_is_read_from_the_font():
    coverage = fonts._read_coverage(io.BytesIO(font_file((0x41, 0x5A), (0x4E00, 0x9FFF))))
    assert [fonts._covers(coverage, ord(c)) for c in "AZ[猫ก"] == [True, True, False, True, False]
    assert fonts._read_coverage(io.BytesIO(font_file((0x41, 0x5A), outlines=b"CBDT"))) == ([], [])  # bitmaps only
    assert fonts._covers(fonts._default_coverage(), ord("a"))
    assert not fonts._covers(fonts._default_coverage(), ord("猫"))


def test_long_tables_are_read():
    groups = struct.pack(">HHIII", 12, 0, 0, 0, 1) + struct.pack(">III", 0x20000, 0x2A6DF, 5)
    assert list(fonts._subtable(groups)) == [(0x20000, 0x2A6DF)]


def test_the_first_font_that_covers_a_character_is_taken(tmp_path, monkeypatch):
    (tmp_path / "broken.ttf").write_bytes(b"\0\1\0\0rubbish")
    (tmp_path / "han.ttf").write_bytes(font_file((0x4E00, 0x9FFF)))
    monkeypatch.setattr(fonts, "_installed", lambda: (tmp_path / "broken.ttf", tmp_path / "han.ttf"))
    monkeypatch.setattr(fonts, "_load", lambda path, size: path.name)
    named = [(text, font if isinstance(font, str) else "default") for text, font in fonts.runs("a 猫字 bก", 11)]
    assert named == [("a ", "default"), ("猫字", "han.ttf"), (" b?", "default")]
    assert fonts.uncovered("aกก猫") == ["ก"]


def test_upright_fonts_of_normal_weight_come_first(tmp_path, monkeypatch):
    for name in ("A-Bold.ttf", "B.ttf", "readme.txt", "C-BoldItalic.otf"):
        (tmp_path / "fonts").mkdir(exist_ok=True)
        (tmp_path / "fonts" / name).touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(fonts.sys, "platform", "linux")
    names = [path.name for path in fonts._installed() if path.is_relative_to(tmp_path)]
    assert names == ["B.ttf", "A-Bold.ttf", "C-BoldItalic.otf"]


def test_missing_scripts_are_said_once(monkeypatch, capsys):
    monkeypatch.setattr(fonts, "_installed", lambda: ())
    fonts.warn_uncovered("a cat")
    assert capsys.readouterr().err == ""
    fonts.warn_uncovered("猫 ก 🐈")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no installed font covers CJK, THAI, emoji and symbols" in said
    assert "fonts-noto-cjk" in said
    fonts.warn_uncovered("犬")
    assert capsys.readouterr().err == ""


def test_without_freetype_only_latin_is_shown(monkeypatch):
    plain = ImageFont.load_default_imagefont()
    monkeypatch.setattr(ImageFont, "load_default", lambda size=None: plain)
    assert "".join(text for text, _ in fonts.runs("naïve 猫", 11)) == "naïve ?"
