"""`dalle data`: write built-in scenes for any tool, and check and preview data before training."""

import inspect
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

from ..console import StageProgress, align, log, print_result
from ..exits import BAD_INPUT, DONE, PARTIAL, USAGE, WOULD_OVERWRITE, Failure
from ..registry import RecipeError, suggest
from .app import MANAGE, command, subgroup
from .manage import accepts
from .options import DataArguments, Json, Overwrite, Quiet

data = subgroup("data", MANAGE, "Write scenes; check data and preview it before training.")

Samples = Iterator[tuple[str, dict[str, bytes]]]  # key, and files by extension


class ObjectSet(StrEnum):
    everyday = "everyday"
    shapes = "shapes"
    emoji = "emoji"


class Format(StrEnum):
    folder = "folder"
    shards = "shards"


@command(
    None,
    "dalle data scenes --out shapes --objects shapes --num-samples 5000",
    "dalle data scenes --out pairs --format shards --num-samples 100000 --size 128",
    to=data,
)
def scenes(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to create.")],
    objects: Annotated[ObjectSet, typer.Option(help="Objects of the scenes.")] = ObjectSet.everyday,
    num_samples: Annotated[int, typer.Option("-n", "--num-samples", metavar="N", min=1, max=10**9)] = 1000,
    size: Annotated[
        int, typer.Option(metavar="N", min=8, max=4096, help="Side of the images, in pixels (8 to 4096).")
    ] = 64,
    layout: Annotated[
        Format, typer.Option("--format", help="PNG and .txt files, or tar shards as img2dataset writes them.")
    ] = Format.folder,
    per_shard: Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Samples per shard.")] = 10_000,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only scenes with combinations that are held out of training.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**64 - 1, help="Seed of the scenes.")] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write built-in scenes with exact captions as a folder or as shards; one seed gives the same bytes."""
    if os.path.lexists(out):
        raise Failure(f"--out {out} already exists: use another folder, or remove it", WOULD_OVERWRITE)
    from ..data.scenes import Scenes
    from ..files import make_folder

    source = Scenes(size=size, objects=objects.value, samples=num_samples, held_out=held_out, seed=seed)
    make_folder(out.parent, "--out")
    progress = StageProgress(quiet)
    try:
        _write(source, out, num_samples, per_shard, layout, lambda done: progress("scenes", done, num_samples))
    finally:
        progress.close()
    result = {"path": str(out), "samples": num_samples, "format": layout.value, "size": size, "objects": objects.value}
    print_result(result, [f"{num_samples:,} samples in {out}: train on them with data.path={out}"], as_json)


def _write(
    source: Any, out: Path, num_samples: int, per_shard: int, layout: Format, written: Callable[[int], None]
) -> None:
    """Write samples to a temporary folder, which is renamed when it is complete."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    unfinished.mkdir(parents=True)
    write = _write_shard if layout is Format.shards else _write_folder
    try:
        for start in range(0, num_samples, per_shard):
            indices = range(start, min(start + per_shard, num_samples))
            write(unfinished, start // per_shard, _encode(source, indices, per_shard, written))
        os.rename(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _encode(source: Any, indices: range, per_shard: int, written: Callable[[int], None]) -> Samples:
    """Yield encoded samples. The keys are img2dataset's: five digits for the shard, four for the position in it."""
    from PIL import Image

    digits = max(4, len(str(per_shard - 1)))
    for index in indices:
        shard, position = divmod(index, per_shard)
        sample = source.read(0, index)
        png = io.BytesIO()
        Image.fromarray(sample["image"]).save(png, "PNG")
        yield f"{shard:05d}{position:0{digits}d}", {"png": png.getvalue(), "txt": sample["text"].encode()}
        written(index + 1)


def _write_folder(folder: Path, shard: int, samples: Samples) -> None:
    for key, files in samples:
        for extension, content in files.items():
            (folder / f"{key}.{extension}").write_bytes(content)


def _write_shard(folder: Path, shard: int, samples: Samples) -> None:
    """Write a tar of images, captions and metadata, and next to it the statistics that mark a finished shard."""
    count = 0
    with tarfile.open(folder / f"{shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, files in samples:
            side = int.from_bytes(files["png"][16:20], "big")
            info = {"caption": files["txt"].decode(), "key": key, "status": "success", "width": side, "height": side}
            for extension, content in {**files, "json": json.dumps(info).encode()}.items():
                member = tarfile.TarInfo(f"{key}.{extension}")  # without time, owner and group: reproducible bytes
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            count += 1
    stats = {"count": count, "successes": count, "failed_to_download": 0, "failed_to_resize": 0}
    (folder / f"{shard:05d}_stats.json").write_text(json.dumps(stats | {"status_dict": {"success": count}}) + "\n")


@command(
    None,
    "dalle data check photos",
    "dalle data check 'shards/{00000..00099}.tar' --json",
    "dalle data check pairs.csv data.caption_column=title --tokenizer starter/clip --context-length 24",
    to=data,
)
def check(
    where: DataArguments = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Count tokens, not words: a vocabulary's JSON, a checkpoint, clip or glide."),
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Count captions with more tokens than this.")
    ] = None,
    max_examples: Annotated[int, typer.Option(metavar="N", min=0, help="Examples listed of each problem.")] = 20,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Read all data and report what is broken, missing, duplicated or too long."""
    from ..data.check import examine

    node = section(where or [])
    encoder = _tokenizer(tokenizer) if tokenizer else None
    limit = _text_tokens(context_length, encoder)
    progress = StageProgress(quiet)
    report = examine(node, encoder, limit, progress=partial(progress, "check"), shown=max_examples)
    progress.close()
    result = {"path": node.get("path"), "type": node["type"], **report}
    print_result(result, _check_lines(result, context_length), as_json)
    if not report["good"]:
        raise Failure(f"none of the {report['samples']} samples can be used", BAD_INPUT)
    raise typer.Exit(PARTIAL if report["bad"] else DONE)


def _text_tokens(context_length: int | None, encoder: Any) -> int | None:
    """Return the tokens that a context has for the caption, without those of its start and end."""
    if not context_length or not encoder:
        return context_length
    limit = context_length - len(encoder.start) - len(encoder.end)
    if limit < 1:
        raise Failure(f"--context-length {context_length}: the start and end tokens alone do not fit", USAGE)
    return limit


@command(
    None,
    "dalle data preview photos --out sheet.png data.size=64 data.crop=random -n 32",
    "dalle data preview photos --recipe clip/tiny",
    to=data,
)
def preview(
    where: DataArguments = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="Use the data keys of this recipe, such as its size: clip/tiny."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="PNG to write.")] = Path("sheet.png"),
    num_images: Annotated[int, typer.Option("-n", "--num-images", metavar="N", min=1, max=1024)] = 16,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a sheet of the first training samples, cropped and captioned as the model will see them."""
    if out.suffix.lower() != ".png":
        raise Failure(f"--out {out}: the sheet is a PNG; use a name that ends in .png", USAGE)
    from ..data.check import preview as make_sheet
    from ..files import check_target
    from ..images import save_png

    node = _recipe_section(recipe, where or []) if recipe else section(where or [])
    check_target(out, "--out", overwrite)
    save_png(make_sheet(node, num_images), out)
    result = {"path": str(out), "samples": num_images, "data": node}
    text = f"{out}: {num_images} samples of {node.get('path', node['type'])}, {node['size']} px"
    print_result(result, [text], as_json)


def section(words: list[str], size: int = 256) -> dict[str, str]:
    """Return the `data` section of a path and `data.*` keys; its type is inferred from the path."""
    from ..data.section import infer_type

    node = _keys(words)
    if "path" not in node and "DALLE_DATA" in os.environ and _takes_path(node.get("type")):
        node["path"] = os.environ["DALLE_DATA"]
    if not node:
        raise Failure("which data? Give a path, or set DALLE_DATA", USAGE)
    return {"type": node.get("type") or infer_type(node.get("path", "")), "size": str(size), **node}


def _takes_path(source: str | None) -> bool:
    from ..data import sources

    return source is None or "path" in inspect.signature(sources.get(source, "data.type")).parameters


def _recipe_section(name: str, words: list[str]) -> dict[str, Any]:
    """Return the `data` section of a recipe, changed by a path and `data.*` keys."""
    from .. import recipe as recipes
    from ..data.section import infer_type

    keys = _keys(words)
    if "path" in keys and "type" not in keys:
        keys = {"type": infer_type(keys["path"]), **keys}  # first, as it decides which other keys stay
    located = recipes.locate(name)
    if located is None:
        raise RecipeError(f"no recipe '{name}'{suggest(name, recipes.all_names())}")
    overrides = [f"data.{key}={value}" for key, value in keys.items()]
    loaded = recipes.load(located[1], located[0], overrides, accepts, log, complete=False)
    if "data" not in loaded:
        raise RecipeError(f"{name}: this recipe has no data section")
    return loaded["data"]


def _keys(words: list[str]) -> dict[str, str]:
    """Return the keys of the data section that a path and words such as `data.size=64` set."""
    keys: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (equals and re.fullmatch(r"[a-z_.]+", key)):
            key, value = "data.path", word
        elif not key.startswith("data."):
            raise RecipeError(f"{word}: only data.* keys are possible here, such as data.{key}={value}")
        if key.removeprefix("data.") in keys:
            raise RecipeError(f"{word}: {key} is given twice")
        keys[key.removeprefix("data.")] = value
    return keys


def _tokenizer(name: str) -> Any:
    """Return a tokenizer: of a JSON file, of a checkpoint, or a published one by its kind."""
    from .. import checkpoint, text
    from ..text import loading

    if name in text.tokenizers.names():
        return text.tokenizers.build({"type": name, "path": "published"})
    if name.endswith((".json", ".json.gz")):
        return loading.load(name)
    path = checkpoint.resolve(name)
    state = checkpoint.metadata(path)["tokenizer"]
    if state is None:
        raise Failure(f"--tokenizer: {path} has no tokenizer: use a checkpoint that reads text", BAD_INPUT)
    return loading.from_state(state)


def _check_lines(result: dict[str, Any], context_length: int | None) -> list[str]:
    """Return the report as lines of text."""
    captions, duplicates = result["captions"], result["duplicates"]
    unit = captions["unit"]
    rows = [("data", f"{result['path'] or 'scenes'} ({result['type']})"), ("samples", result["samples"])]
    rows += [("usable", result["good"]), ("bad", sum(result["bad"].values()))]
    rows += [(f"  {reason}", count) for reason, count in result["bad"].items()]
    rows += [("shorter side", _histogram(result["sides"], "px"))]
    rows += [("captions", captions["count"]), ("without caption", captions["empty"])]
    rows += [("length", f"{_histogram(captions['lengths'], unit)}; longest {captions['longest']}")]
    if context_length:
        rows.append((f"over {context_length} {unit}", captions["over_context"]))
    rows += [(f"duplicate {kind}", found["count"]) for kind, found in duplicates.items()]
    lines = align(rows)
    lines += [f"problem: {line}" for line in result["problems"]]
    lines += [f"bad: {key}: {reason}" for key, reason in result["bad_samples"]]
    for kind, found in duplicates.items():
        lines += [f"duplicate {kind}: {', '.join(found['keys'])}"] if found["keys"] and kind != "captions" else []
    return lines


def _histogram(bins: list[list[Any]], unit: str) -> str:
    """Return `0-1: 19, 2: 135 (tokens)` for bins of lower bound, upper bound and count."""
    filled = [(low, below, count) for low, below, count in bins if count]
    names = [
        f"{low}+" if not below else f"{low}" if below == low + 1 else f"{low}-{below - 1}" for low, below, _ in filled
    ]
    return ", ".join(f"{name}: {count:,}" for name, (*_, count) in zip(names, filled)) + f" ({unit})"
