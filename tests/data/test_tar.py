import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalle_cli.data.tar import TarError, ends_whole, members

from .conftest import write_tar

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=300).map(
    lambda s: s.strip("/") or "x"
)
contents = st.lists(st.tuples(names, st.binary(max_size=1500)), min_size=1, max_size=6)
FORMS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def packed(content, form) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@given(contents, st.sampled_from(FORMS[1:]))
@settings(max_examples=80, deadline=None)
def test_names_and_data_are_as_written(content, form):
    file = io.BytesIO(packed(content, form))
    found = list(members(file))
    data = [file.getvalue()[member.offset : member.offset + member.size] for member in found]
    assert [(member.name, one) for member, one in zip(found, data)] == content
    assert all(member.regular for member in found)


def test_prefix_of_a_posix_header():
    name = "folder/" * 18 + "a.jpg"
    file = io.BytesIO(packed([(name, b"x")], tarfile.USTAR_FORMAT))
    assert [member.name for member in members(file)] == [name]


@pytest.mark.parametrize("form", FORMS)
def test_a_member_can_be_found_again_by_its_header(form):
    content = [("a.jpg", b"1" * 700), ("n" * 90 + ".jpg", b"2"), ("c.jpg", b"3" * 512)]
    if form != tarfile.USTAR_FORMAT:
        content.append(("long" * 60 + ".jpg", b"4" * 10))
    file = io.BytesIO(packed(content, form))
    for member in list(members(file)):
        assert next(members(file, member.header)) == member


def test_special_members_are_told(tmp_path):
    special = []
    for name, kind in (
        ("folder", tarfile.DIRTYPE),
        ("hard", tarfile.LNKTYPE),
        ("soft", tarfile.SYMTYPE),
        ("pipe", tarfile.FIFOTYPE),
    ):
        info = tarfile.TarInfo(name)
        info.type = kind
        info.linkname = "/etc/passwd"
        special.append(info)
    path = write_tar(tmp_path / "x.tar", [*special, ("a.txt", b"a")])
    with open(path, "rb") as file:
        assert [(member.name, member.regular) for member in members(file)] == [
            ("folder/", False), ("hard", False), ("soft", False), ("pipe", False), ("a.txt", True)
        ]  # fmt: skip


@given(st.integers(0, 4500))
@settings(max_examples=80, deadline=None)
def test_a_cut_tar_gives_the_whole_members_before_the_cut(cut):
    content = [("a.jpg", b"1" * 1000), ("b.jpg", b"2" * 600), ("c.jpg", b"3")]
    whole = packed(content, tarfile.USTAR_FORMAT)
    file = io.BytesIO(whole[:cut])
    found = []
    with pytest.raises(TarError, match="cut short at byte"):
        collect(file, found)
    ends = [512 + 1000, 512 + 1024 + 512 + 600, 512 + 1024 + 512 + 1024 + 512 + 1]
    assert len(found) == sum(end <= cut for end in ends)
    assert not ends_whole(file)


def collect(file, found: list) -> None:
    """Like `found += members(file)`, keeping what came before an error."""
    for member in members(file):
        found.append(member)


@pytest.mark.parametrize("form", FORMS)
def test_whole_tars_end_whole(form):
    assert ends_whole(io.BytesIO(packed([("a", b"1" * 5000)], form)))
    assert ends_whole(io.BytesIO(packed([], form)))


def test_what_is_no_tar():
    for data in (b"x" * 2000, b"\x1f\x8b" + b"z" * 2000, packed([("a", b"b")], tarfile.GNU_FORMAT)[:148] + b"9" * 2000):
        with pytest.raises(TarError, match="no tar header at byte 0"):
            list(members(io.BytesIO(data)))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damage_ends_in_members_or_an_error(data):
    content = data.draw(contents)
    whole = bytearray(packed(content, data.draw(st.sampled_from(FORMS[1:]))))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file = io.BytesIO(bytes(whole))
    found: list = []
    with contextlib.suppress(TarError):
        collect(file, found)
    assert all(member.offset + member.size <= len(whole) for member in found)
    assert sorted(member.header for member in found) == [member.header for member in found]


def test_huge_sizes_in_gnu_form():
    info = tarfile.TarInfo("big")
    info.size = 9 * 2**33
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(TarError, match=f"cut short at byte {len(header)}"):
        list(members(io.BytesIO(header)))
