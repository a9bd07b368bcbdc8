"""Retired words: names and phrases that flags, recipe keys, JSON fields, help and documentation do not use."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dalle_cli import data, migrations, tasks, text
from dalle_cli.data.section import Loading
from dalle_cli.models import models
from dalle_cli.registry import documented_keys
from dalle_cli.systems import systems
from dalle_cli.training import options, vocabulary
from tests.fixtures.docs import PAGES, ROOT, root_command

# Regular expressions over lower-case text, each with what to write in its place.
WORDS = {
    r"pictures?\b": "image",
    r"tint(s|ed)?\b": "color",
    r"glyphs?\b": "object",
    r"colou?red? grounds?\b": "background",
    r"colours?\b|coloured\b": "color",
    r"grey(scale)?\b": "gray",
    r"centred?\b": "center",
    r"(?:normal|recogn|optim|initial|quant|summar|organ|minim|maxim|token|serial|visual|general)is[eia]": "-ize",
    r"(?:special|memor|standard|util|synchron|regular|parametr|penal|emphas|custom|real|digit)is[eia]": "-ize",
    r"optimiser\b": "optimizer",
    r"redrawn?\b": "reconstruct",
    r"drawn?\b|draws\b|drew\b|drawing\b": "generate, sample",
    r"told\b": "conditioning, text, config",
    r"codes\b": "image tokens",
    r"beside\b": "next to, besides",
    r"so many\b": "N",
    r"in good order\b": "gracefully",
    r"to the bit\b": "bit-identical",
    r"mend(ed|s)?\b": "fix",
    r"go(es)? on\b|went on\b": "resume, continue",
    r"likeliest\b": "most likely",
    r"greatest\b": "maximum",
    r"companions?\b": "frozen model",
    r"young\b": "undertrained",
    r"wordless\b": "no text",
    r"strangers?\b": "untrusted",
    r"verdicts?\b": "result",
    r"holes?\b": "mask",
    r"wear(s|ing)?\b|wore\b": "texture",
}  # fmt: skip

# A word that is right in its place.
ALLOWED = (
    "dalle draw", "exit codes", "exit-codes", "codes of their own",
)  # fmt: skip

FLAGS = (
    "--scale", "--scales", "--prior-scale", "--guided-at", "--guide", "--watch", "--like", "--wordless", "--among",
    "--shown", "--refine", "--etas", "--best-of", "--context", "--peak", "--utilisation", "--basis", "--scenes",
    "--against", "--glyphs", "--count", "--captions", "--pictures",
)  # fmt: skip

FIELDS = (
    "draw", "codes", "share", "toward", "drive", "figures", "wholes", "inside", "asked", "untouched", "near",
    "near_db", "ways", "frames", "turned", "kept", "exchanged", "of_all", "used", "caption_first", "picture_first",
    "first", "centred", "text", "values", "types", "entries", "made", "replaced", "pictures", "among", "glyphs",
)  # fmt: skip
FIELDS_KEPT = {("classify", "text"), ("search", "text")}  # a text is what it is

KEYS = {
    "data": (
        "colour", "background", "kinds", "scatter", "wording", "glyphs", "captions", "max_bad", "validation",
        "workers",
    ),
    "train": ("accumulate", "ema", "shard", "patience", "keep", "init", "preview"),
    "optim": ("warmup", "final", "clip_norm"),
    "tracker": ("extras",),
    "learn": ("size",),
    "sample": ("scale", "guided_at", "best_of", "threshold", "prior_scale", "guide"),
    "parts": ("embedder",),
    "model": ("codes", "states", "multiples", "head_width", "places", "share", "hidden", "checkpointing"),
    "task": (
        "drop_text", "drop_image", "erase_all", "predict", "shift", "redrawn", "kl", "kl_steps", "balance", "clamp",
        "blur", "noise",
    ),
}  # fmt: skip


def retired(text: str) -> list[str]:
    """Return what a text says in retired words, with what to write instead."""
    found = []
    plain = re.sub(r"https?://\S+", "", text).lower()
    for allowed in ALLOWED:
        plain = plain.replace(allowed, " ")
    for pattern, better in WORDS.items():
        found += [f"{match[0]!r} (write {better})" for match in re.finditer(rf"\b(?:{pattern})", plain)]
    return found


def test_retired_words_are_recognized():
    assert len(retired("Draw pictures in a colour that it never wore, to the bit")) == 5
    assert not retired("Generate images; exit codes; otherwise raise the size of the noise precisely")


@pytest.mark.parametrize("path", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=lambda p: p.name)
def test_page_uses_no_retired_words(path: Path):
    assert not retired(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_recipe_comments_use_no_retired_words(path: Path):
    comments = "\n".join(re.findall(r"#(.*)", path.read_text(encoding="utf-8")))
    assert not retired(comments)


def _commands(command: Any, name: str = "dalle") -> list[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    return [(name, command), *(one for key, sub in inner.items() for one in _commands(sub, f"{name} {key}"))]


@pytest.mark.parametrize(("name", "command"), _commands(root_command()), ids=lambda value: str(value)[:40])
def test_help_uses_no_retired_words(name: str, command: Any):
    helps = [command.help or "", *(getattr(one, "help", None) or "" for one in command.params)]
    metavars = [one.metavar or "" for one in command.params]
    assert not retired("\n".join([*helps, *metavars]))
    flags = {flag for one in command.params for flag in one.opts}
    assert not flags & set(FLAGS)


def _sampling(name: str) -> Any:
    part: Any = systems.get(name)
    return part.options_type


def test_recipe_keys_are_not_retired():
    parts = {"model": models, "task": tasks.tasks, "data": data.sources, "tokenizer": text.tokenizers}
    plain = {**options.SECTIONS, "learn": vocabulary.Learn}
    present = {
        section: {key.name for name in registry.names() for key in documented_keys(registry.get(name))}
        for section, registry in parts.items()
    }
    present["data"] |= {key.name for key in documented_keys(Loading)}
    present |= {section: {key.name for key in documented_keys(kind)} for section, kind in plain.items()}
    present["sample"] = {key.name for name in systems.names() for key in documented_keys(_sampling(name))}
    present["parts"] = {key.name for name in systems.names() for key in documented_keys(systems.get(name))}
    bad = [f"{section}.{key}" for section, keys in KEYS.items() for key in keys if key in present[section]]
    assert not bad


def test_migrated_keys_are_gone():
    for registry, tables in ((models, migrations.MODEL_KEYS), (tasks.tasks, migrations.TASK_KEYS)):
        for kind, keys in tables.items():
            if kind in registry.names():
                present = {key.name for key in documented_keys(registry.get(kind))}
                assert not present & (set(keys) - set(keys.values())), kind


def test_json_fields_are_not_retired():
    tables = yaml.safe_load((ROOT / "docs/json_fields.yaml").read_text(encoding="utf-8"))
    named = [(name, field) for name, fields in tables.items() for field in (fields or {}) if isinstance(field, str)]
    assert not [one for one in named if one[1] in FIELDS and one not in FIELDS_KEPT]
