"""Mutate valid files and recipes."""

import random
import re

VALUES = [
    None, True, False, 0, -1, 1, 3, 255, 10_000, (1 << 31) - 1, 1 << 63, 10**30, 0.5, -1.5, 1e300, "nan", "inf",
    "1e999", "9" * 5000, "", " ", "x", "None", "null", "???", "${model}", "${oc.env:HOME}", "${oc.create:[1]}", "${",
    "a\0b", "\ud800", "\x1b[2J", "é" * 300, "../../x", "/etc/passwd", "/dev/null", ".", "~", "*", "[", "{", "{0..9}",
    "published", "starter", "starter/clip", "scenes", "folder", "table", "shards", "mixture", "vit", "os.system", [],
    {}, [1, 2], ["x"], [[[[]]]], [None], {"type": "vit"}, {"type": None}, {"a": {"b": {"c": 1}}},
    {"type": "dvae", "n_hid": 8}, {"1": 2}, "x" * 100_000,
]  # fmt: skip


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Return a file with a few bits flipped, numbers changed, parts removed, doubled or moved, or its end missing."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at, length = rng.randrange(len(out) + 1), min(rng.choice((1, 2, 4, 8, 64, 512)), len(out))
        other = rng.randrange(len(out) + 1)
        kind = rng.randrange(8)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"[", b'"', b"\n")) * length
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[other : other + length]
        elif kind == 4:
            out[at : at + length] = out[other : other + length]
        elif kind == 5 and rng.random() < 0.3:
            del out[at:]
        elif kind == 6:
            numbers = list(re.finditer(rb"\d+", out))
            if numbers:
                number = rng.choice(numbers)
                extreme = (b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"9" * 5000, b"4294967296", b"x")
                out[number.start() : number.end()] = rng.choice(extreme)
        else:
            out[at:at] = rng.choice(
                (b"{", b"}", b"]", b",", b":", b"\\ud800", b"\0", b"\xc3", b"&a *a", b"!!", b"\r\n\r\n", b"- ")
            )
    return bytes(out)


def replace_one(rng: random.Random, value):
    """Return a tree of dicts and lists with one change: another value, or a key removed, renamed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.7:
            return value | {key: replace_one(rng, value[key])}
        rest = {name: item for name, item in value.items() if name != key}
        if kind < 0.8:
            return rest
        if kind < 0.9:
            return rest | {rng.choice((key[:-1], key + "x", "type", "", "a.b", "extends", "0")): value[key]}
        return value | {rng.choice(("type", "x", "extends", "path")): rng.choice(VALUES)}
    return rng.choice(VALUES)
