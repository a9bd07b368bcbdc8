"""`dalle data`: scenes written for any tool, data checked and looked at before training on it."""

import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import StageProgress, align, print_result
from ..exits import BAD_INPUT, DONE, PARTIAL, USAGE, WOULD_OVERWRITE, Failure
from ..registry import RecipeError
from .app import MANAGE, command, subgroup
from .options import DataArguments, Json, Overwrite, Quiet

data = subgroup("data", MANAGE, "Write scenes; check data and preview it before training.")


class Glyphs(StrEnum):
    everyday = "everyday"
    shapes = "shapes"
    emoji = "emoji"


class Format(StrEnum):
    folder = "folder"
    shards = "shards"


@command(
    None,
    "dalle data scenes shapes --objects shapes --count 5000",
    "dalle data scenes pairs --format shards --count 100000 --size 128",
    to=data,
)
def scenes(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    glyphs: Annotated[Glyphs, typer.Option("--objects", help="Objects of the scenes.")] = Glyphs.everyday,
    count: Annotated[int, typer.Option(min=1, max=10**9, help="Samples.")] = 1000,
    size: Annotated[int, typer.Option(min=8, max=4096, help="Pixels of a side.")] = 64,
    layout: Annotated[
        Format, typer.Option("--format", help="Pictures with .txt files, or tars as img2dataset writes them.")
    ] = Format.folder,
    per_shard: Annotated[int, typer.Option(min=1, max=10**6, help="Samples in a tar.")] = 10_000,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only scenes with a combination that training never shows.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Other scenes for every seed.")] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write scenes with exact captions as a folder or as shards; the same bytes every time."""
    if os.path.lexists(out):
        raise Failure(f"{out} already exists: use another folder, or remove it", WOULD_OVERWRITE)
    from ..data.scenes import Scenes
    from ..files import make_folder

    source = Scenes(size=size, objects=glyphs.value, samples=count, held_out=held_out, seed=seed)
    make_folder(out.parent, "OUT")
    watch = StageProgress(quiet)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    unfinished.mkdir(parents=True)
    try:
        for start in range(0, count, per_shard):
            numbers = range(start, min(start + per_shard, count))
            samples = _encoded(source, numbers, per_shard, lambda done: watch("scenes", done, count))
            (_write_shard if layout is Format.shards else _write_folder)(unfinished, start // per_shard, samples)
        os.rename(unfinished, out)
    finally:
        watch.close()
        shutil.rmtree(unfinished, ignore_errors=True)
    result = {"path": str(out), "samples": count, "format": layout.value, "size": size, "glyphs": glyphs.value}
    print_result(
        result, [f"{count:,} samples in {out}: train on them with data.type={layout} data.path={out}"], as_json
    )


def _encoded(
    source: Any, numbers: range, per_shard: int, written: Callable[[int], None]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and files by extension of each sample. Keys as img2dataset's: five digits of the shard, four of the place."""
    from PIL import Image

    digits = max(4, len(str(per_shard - 1)))
    for number in numbers:
        shard, place = divmod(number, per_shard)
        sample = source.read(0, number)
        picture = io.BytesIO()
        Image.fromarray(sample["image"]).save(picture, "PNG")
        yield f"{shard:05d}{place:0{digits}d}", {"png": picture.getvalue(), "txt": sample["text"].encode()}
        written(number + 1)


def _write_folder(folder: Path, shard: int, samples: Iterator[tuple[str, dict[str, bytes]]]) -> None:
    for key, files in samples:
        for extension, content in files.items():
            (folder / f"{key}.{extension}").write_bytes(content)


def _write_shard(folder: Path, shard: int, samples: Iterator[tuple[str, dict[str, bytes]]]) -> None:
    """A tar of pictures, captions and facts, and beside it the statistics that mark a finished shard."""
    count = 0
    with tarfile.open(folder / f"{shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, files in samples:
            side = int.from_bytes(files["png"][16:20], "big")
            facts = {"caption": files["txt"].decode(), "key": key, "status": "success", "width": side, "height": side}
            for extension, content in {**files, "json": json.dumps(facts).encode()}.items():
                member = tarfile.TarInfo(f"{key}.{extension}")  # no time, owner or group: the same bytes every time
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            count += 1
    stats = {"count": count, "successes": count, "failed_to_download": 0, "failed_to_resize": 0}
    (folder / f"{shard:05d}_stats.json").write_text(json.dumps(stats | {"status_dict": {"success": count}}) + "\n")


@command(
    None,
    "dalle data check photos",
    "dalle data check 'shards/{00000..00099}.tar' --json",
    "dalle data check pairs.csv data.caption_column=title --tokenizer starter/clip --context 24",
    to=data,
)
def check(
    where: DataArguments = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Measure captions with: a vocabulary's JSON, a checkpoint, or clip or glide.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=1, help="A model's tokens: count captions too long.")] = None,
    shown: Annotated[int, typer.Option(min=0, help="How many of each kind are named.")] = 20,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Read all of some data and report: what is broken, missing, double or too long."""
    from ..data.check import examine

    node = section(where or [])
    encoder = _tokenizer(tokenizer) if tokenizer else None
    room = context
    if context and encoder:
        room = context - len(encoder.start) - len(encoder.end)
        if room < 1:
            raise Failure(f"--context {context} has no room for the start and end tokens", USAGE)
    watch = StageProgress(quiet)
    found = examine(node, encoder, room, progress=partial(watch, "check"), shown=shown)
    watch.close()
    result = {"path": node.get("path"), "type": node["type"], **found}
    print_result(result, _check_lines(result, context), as_json)
    if not found["good"]:
        raise Failure(f"none of the {found['samples']} samples can be used", BAD_INPUT)
    raise typer.Exit(PARTIAL if found["bad"] else DONE)


@command(None, "dalle data preview photos --out sheet.png data.size=64 data.crop=random -n 32", to=data)
def preview(
    where: DataArguments = None,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("sheet.png"),
    count: Annotated[int, typer.Option("-n", min=1, max=1024, help="Samples.")] = 16,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a sheet of the first training samples, cropped and captioned as a model will see them."""
    if out.suffix.lower() != ".png":
        raise Failure(f"--out {out}: a sheet is a PNG; give a name that ends in .png", USAGE)
    from ..data.check import preview as draw
    from ..files import check_target
    from ..images import save_png

    node = section(where or [])
    check_target(out, "--out", overwrite)
    save_png(draw(node, count), out)
    result = {"path": str(out), "samples": count, "data": node}
    print_result(result, [f"{out}: {count} samples of {node.get('path', node['type'])}, {node['size']} px"], as_json)


def section(words: list[str], size: int = 256) -> dict[str, str]:
    """The `data` section that a path and `data.*` keys mean; its type is told from what is at the path."""
    from ..data.section import infer_type

    node: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (equals and re.fullmatch(r"[a-z_.]+", key)):
            key, value = "data.path", word
        elif not key.startswith("data."):
            raise RecipeError(f"{word}: here only data.* can be given, such as data.{key}={value}")
        if key.removeprefix("data.") in node:
            raise RecipeError(f"{word}: {key} is given twice")
        node[key.removeprefix("data.")] = value
    if "path" not in node and node.get("type") != "scenes" and "DALLE_DATA" in os.environ:
        node["path"] = os.environ["DALLE_DATA"]
    if not node:
        raise Failure("which data? Give a path, or set DALLE_DATA", USAGE)
    return {"type": node.get("type") or infer_type(node.get("path", "")), "size": str(size), **node}


def _tokenizer(name: str) -> Any:
    """A tokenizer: of a JSON file, of a checkpoint, or published, by its kind."""
    from .. import checkpoint, text
    from ..text import loading

    if name in text.tokenizers.names():
        return text.tokenizers.build({"type": name, "path": "published"})
    if name.endswith((".json", ".json.gz")):
        return loading.load(name)
    path = checkpoint.resolve(name)
    state = checkpoint.metadata(path)["tokenizer"]
    if state is None:
        raise Failure(f"--tokenizer: {path} has no tokenizer; take one that reads text", BAD_INPUT)
    return loading.from_state(state)


def _check_lines(result: dict[str, Any], context: int | None) -> list[str]:
    """The report of `dalle data check` for people."""
    captions, duplicates = result["captions"], result["duplicates"]
    unit = captions["unit"]
    rows = [("data", f"{result['path'] or 'scenes'} ({result['type']})"), ("samples", result["samples"])]
    rows += [("usable", result["good"]), ("bad", sum(result["bad"].values()))]
    rows += [(f"  {reason}", count) for reason, count in result["bad"].items()]
    rows += [("shorter side", _histogram(result["sides"], "px"))]
    rows += [("captions", captions["count"]), ("without caption", captions["empty"])]
    rows += [("length", f"{_histogram(captions['lengths'], unit)}; longest {captions['longest']}")]
    if context:
        rows.append((f"over {context} {unit}", captions["over_context"]))
    rows += [(f"double {kind}", found["count"]) for kind, found in duplicates.items()]
    lines = align(rows)
    lines += [f"problem: {line}" for line in result["problems"]]
    lines += [f"bad: {key}: {reason}" for key, reason in result["bad_samples"]]
    for kind, found in duplicates.items():
        lines += [f"double {kind}: {', '.join(found['keys'])}"] if found["keys"] and kind != "captions" else []
    return lines


def _histogram(bins: list[list[Any]], unit: str) -> str:
    """`0-1: 19, 2: 135 (tokens)` of bins from, below and count."""
    filled = [(low, below, count) for low, below, count in bins if count]
    names = [
        f"{low}+" if not below else f"{low}" if below == low + 1 else f"{low}-{below - 1}" for low, below, _ in filled
    ]
    return ", ".join(f"{name}: {count:,}" for name, (*_, count) in zip(names, filled)) + f" ({unit})"
