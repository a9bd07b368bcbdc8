"""Files made to break the program, next to valid ones of the same kinds."""

import gzip
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.recipe import to_yaml
from tests.data.conftest import picture, write_tar
from tests.training.conftest import RECIPE

# ---- images ----------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, width: int = 4, height: int = 4, depth: int = 8, rows: bytes | None = None) -> bytes:
    """A gray PNG with chunks before its rows: compressed data, or by default black rows."""
    packed = zlib.compress(bytes((width * depth // 8 + 1) * height)) if rows is None else rows
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    """`size` zero bytes, compressed."""
    packer = zlib.compressobj(1)
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(size >> 20)) + packer.flush()


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def odd_images() -> dict[str, bytes]:
    """Unusual and valid images."""
    red, blue = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    turned = Image.Exif()
    turned[0x0112] = 6  # its left side is the top
    both = red.copy()
    both.paste(blue, (20, 0))
    return {
        "animated.gif": saved(red, "GIF", save_all=True, append_images=[blue] * 3),
        "animated.webp": saved(red, "WEBP", save_all=True, append_images=[blue] * 3),
        "animated.png": saved(red, "PNG", save_all=True, append_images=[blue] * 3),
        "cmyk.jpg": saved(red.convert("CMYK"), "JPEG"),
        "deep.png": saved(Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "PNG"),
        "turned.jpg": saved(both, "JPEG", exif=turned, quality=95),
        "palette.png": saved(red.quantize(4), "PNG", transparency=0),
        "alpha.png": saved(Image.new("RGBA", (40, 30), (255, 0, 0, 128)), "PNG"),
    }


def images() -> dict[str, bytes]:
    good = picture(size=(32, 32))
    text = json.dumps({"prompt": "x"})
    return {
        **{f"odd/{name}": content for name, content in odd_images().items()},
        **{f"odd/{Path(name).stem}.txt": b"a red image" for name in odd_images()},
        "good.png": good,
        "half.png": good[: len(good) // 2],
        "text/a.jpg": b"not an image",
        "text/a.txt": b"a caption",
        "text/b.jpg": b"not an image either",
        "text/b.txt": b"another",
        "huge.png": png(width=30_000, height=30_000, depth=1, rows=zeros(3_751 * 30_000)),
        "bombs/wide.png": png(width=(1 << 31) - 1, height=(1 << 31) - 1, rows=b""),
        "bombs/huge.png": png(width=30_000, height=30_000, depth=1, rows=b""),
        "bombs/rows.png": png(rows=zeros(64 << 20)),
        "bombs/text.png": png(chunk(b"zTXt", b"comment\0\0" + zeros(64 << 20))),
        "bombs/good.png": good,
        "text-bomb.png": png(chunk(b"zTXt", b"dalle\0\0" + zeros(64 << 20))),
        "no-json.png": png(chunk(b"tEXt", b"dalle\0{half")),
        "deep-json.png": png(chunk(b"tEXt", b"dalle\0" + b'{"a":' * 50_000)),
        "foreign.png": png(chunk(b"tEXt", b"dalle\0" + text.encode())),
        "elsewhere.png": png(chunk(b"tEXt", b"dalle\0" + json.dumps(origin(recipe="../../../etc/passwd")).encode())),
        "nul.png": png(chunk(b"tEXt", b"dalle\0" + json.dumps(origin(prompt="a\0b")).encode())),
        "long/a.png": good,
        "long/a.txt": b"word " * 10_000,
        "nul/a.png": good,
        "nul/a.txt": b"a\0b",
        "no-text/a.png": good,
        "no-text/a.txt": bytes(range(128, 256)),
        "folder.png/inside": b"a folder with the name of an image",
    }


def origin(**changes) -> dict:
    """The record of an image by `dalle sample`."""
    record = {"command": "sample", "version": "0", "recipe": "dalle1", "options": {}, "models": {}, "fields": {}}
    return {**record, "prompt": "x", "seed": 0, "sample_index": 0, "index": 0, **changes}


# ---- data ------------------------------------------------------------------------------------------------------------


def shards(folder: Path) -> dict[str, bytes]:
    good = picture(size=(32, 32))

    def tar(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
        return write_tar(folder / "made.tar", members).read_bytes()

    link, device = tarfile.TarInfo("link.png"), tarfile.TarInfo("device.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    data = tar(*((f"{i}.{end}", data) for i in range(4) for end, data in (("png", good), ("txt", b"a red square"))))
    large = bytearray(tar(("0.png", good), ("0.txt", b"x")))
    large[124:136] = b"\x80" + (1 << 62).to_bytes(11, "big")
    large[148:156] = b"%06o\0 " % (sum(large[:148]) + 256 + sum(large[156:512]))
    names = ("../../evil", "/abs/evil", "../../../../../../../../tmp/evil", "a/../../evil", "..")
    return {
        "whole.tar": data,
        "cut.tar": data[: len(data) // 3],
        "cut-at-once.tar": data[:700],
        "dots.tar": tar(*((f"{name}.{end}", data) for name in names for end, data in (("png", good), ("txt", b"x")))),
        "links.tar": tar(link, device),
        "size-lies.tar": bytes(large),
        "no.tar": b"not a tar" * 150,
        "compressed.tar": gzip.compress(data),
        "empty.tar": bytes(10_240),
    }


def tables() -> dict[str, bytes]:
    def lines(*rows) -> bytes:
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    return {
        "surrogate.jsonl": lines({"image": "good.png", "text": "half \ud800 a pair"}),
        "nul.jsonl": lines({"image": "good\0.png", "text": "a\0b"}, {"image": "good.png", "text": "fine"}),
        "numbers.jsonl": lines({"image": 3, "text": {"a": 1}}, {"image": "good.png", "text": "fine"}),
        "deep.jsonl": b'{"image": "good.png", "text": ' + b"[" * 100_000 + b"\n",
        "broken.jsonl": b"{broken\n" * 3,
        "columns.csv": b"picture,words\ngood.png,x\n",
        "quote.csv": b'image,text\ngood.png,"never closed' + b"\n" * 200_000,
        "missing.csv": b"image,text\ngone.png,x\n",
        "header.csv": b"image,text\n",
        "binary.csv": bytes(range(256)) * 64,
        "no.parquet": b"PAR1 this is none PAR1",
    }


def prompts() -> dict[str, bytes]:
    return {
        "binary.txt": bytes(range(256)) * 16,
        "utf16.txt": "a red circle\n".encode("utf-16"),
        "nothing.txt": b"\n  \n",
        "long-line.txt": b"x" * (1 << 19),
        "good.txt": b"a red circle\nzebra\n",
    }


# ---- checkpoints and recipes -----------------------------------------------------------------------------------------


def checkpoints(dvae: str) -> dict[str, bytes]:
    data = Path(dvae).read_bytes()
    recipe = checkpoint.metadata(Path(dvae))["recipe"]
    flipped = bytearray(data)
    flipped[-3] ^= 16

    def lying(fields: dict) -> None:
        next(value for key, value in fields.items() if key != "__metadata__")["shape"] = [1 << 40]

    def past_the_end(fields: dict) -> None:
        next(value for key, value in fields.items() if key != "__metadata__")["data_offsets"][1] = 1 << 40

    return {
        "cut.safetensors": data[: len(data) // 2],
        "flipped.safetensors": bytes(flipped),
        "lying.safetensors": with_changed_header(data, lying),
        "past.safetensors": with_changed_header(data, past_the_end),
        "length.safetensors": b"\xff" * 7 + b"\x7f" + data[8:],
        "unsafe-part.safetensors": with_metadata(
            data, recipe={"model": {"type": "os.system", "command": "touch evil"}}
        ),
        "enormous.safetensors": with_metadata(data, recipe={"model": {"type": "dvae", "vocab_size": 1 << 60}}),
        "negative.safetensors": with_metadata(
            data, recipe={"model": {"type": "dvae", "n_hid": -8}, "task": {"type": "dvae"}}
        ),
        "endless.safetensors": with_metadata(
            data, recipe={"model": {"type": "dvae", "num_res_blocks": 1 << 40}, "task": {"type": "dvae"}}
        ),
        "large.safetensors": with_metadata(
            data, recipe=recipe | {"model": {"type": "dvae", "vocab_size": 1 << 30, "n_hid": 64}}
        ),
        "no-task.safetensors": with_metadata(data, recipe={"model": recipe["model"]}),
        "frozen.safetensors": with_metadata(data, recipe=recipe | {"frozen": [1, 2]}),
        "deep.safetensors": with_metadata(data, recipe="[" * 100_000),
        "foreign.safetensors": with_changed_header(data, lambda fields: fields.pop("__metadata__")),
        "system.pt": b"\x80\x04cposix\nsystem\nX\x0a\x00\x00\x00touch evil\x85R.",
        "unknown.safetensors": with_header(
            b"\0" * 8 + b"abcd", {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        ),
        "pickle.safetensors": b"\x80\x04cos\nsystem\nX\x0a\x00\x00\x00touch evil\x85R.",
        "no.yaml": b"model: [",
        "nul.yaml": to_yaml(RECIPE | {"data": {"type": "folder", "path": "a\0b", "size": 16}}).encode(),
        "list.yaml": b"- a\n- b\n",
        "tag.yaml": b"model: !!python/object/apply:os.system ['touch evil']\n",
        "billion.yaml": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 9)) for c in range(97, 106)),
        "deep.yaml": b"model: " + b"[" * 5_000,
        "binary.yaml": bytes(range(256)),
        "circle.yaml": b"extends: circle.yaml\n",
        "outside.yaml": b"extends: ../../../../etc/passwd\n",
        "self.yaml": b"model: ${model}\n",
        "environment.yaml": b"model: ${oc.env:HOME}\n",
        "section.yaml": b"modle: {type: dvae}\n",
        "no-part.yaml": b"model: 3\ntask: [1]\ndata: x\noptim: 4\ntrain: 5\n",
        "empty.yaml": b"",
        "bomb.json": gzip.compress(b"{" + bytes(1 << 27)),
        "deep.json": b'{"a":' * 100_000,
        "words.json": b'{"type": "clip", "merges": ["a b c", 3]}',
    }


def with_changed_header(data: bytes, change: Callable[[dict], object]) -> bytes:
    """A safetensors file with another header."""
    (length,) = struct.unpack("<Q", data[:8])
    fields = json.loads(data[8 : 8 + length])
    change(fields)
    return with_header(data, fields)


def with_header(data: bytes, fields: object) -> bytes:
    header = json.dumps(fields).encode()
    (length,) = struct.unpack("<Q", data[:8])
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def with_metadata(data: bytes, **metadata) -> bytes:
    """A checkpoint with other metadata and the right seal, as an attacker would write it."""

    def change(fields: dict) -> None:
        changed = fields["__metadata__"]
        changed |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        changed["seal"] = checkpoint._seal(changed)

    return with_changed_header(data, change)
