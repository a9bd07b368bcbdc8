import re

import pytest

from dalle_cli import recipe
from dalle_cli.cli import hints
from dalle_cli.cli.explain import explain
from dalle_cli.cli.hints import hint


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("sample", "x", "--device", "cuda"), "CUDA_VISIBLE_DEVICES"),
        (("train-clip", "--gpu", "0"), "CUDA_VISIBLE_DEVICES"),
        (("sample", "x", "--size", "256"), "dalle upscale"),
        (("train-dvae", "--size", "64"), "data.size=64"),
        (("train-decoder", "--steps", "100"), "train.steps="),
        (("train-clip", "--crop", "pad"), "data.crop=pad"),
        (("data", "preview", "photos", "--crop", "pad"), "data.crop=pad"),
        (("sample", "x", "--cfg-scale", "3"), "--guidance-scale"),
    ],
)
def test_newcomers_options_are_answered(dalle, words, remedy):
    ended = dalle(*words)
    option = next(word for word in words if word.startswith("--"))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"dalle: No such option: {option}. ")
    assert remedy in ended.err


def test_other_options_get_no_hint():
    assert hint("--colour", "dalle sample") is None
    assert hint("--negative-prompt", "dalle train-clip") is None


def test_hints_name_no_existing_option(commands):
    """A hint for an option that a command has could never be shown."""
    taken = {words: {flag for one in command.params for flag in one.opts} for words, command in commands.items()}
    for words in (("train-clip",), ("train-prior",)):
        assert not taken[words] & set(hints.TRAINING)
    assert not taken["sample",] & set(hints.CREATING)
    for words, flags in taken.items():
        assert not flags & set(hints.ANYWHERE), words


def test_hinted_keys_exist():
    family, name = recipe.locate("clip/tiny")
    keys = {row["key"] for row in explain(recipe.load(name, family, complete=False))}
    hinted = {key for text in hints.TRAINING.values() for key in re.findall(r"([a-z]+\.[a-z_]+)=", text)}
    assert len(hinted) > 10
    assert hinted - {"data.path"} <= keys
