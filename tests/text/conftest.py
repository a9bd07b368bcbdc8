import os
from pathlib import Path

import pytest

from dalle_cli.text.learn import learn

CAPTIONS = [
    "a red apple on a wooden table",
    "two red apples and a green pear",
    "a wooden chair left of a clock",
    "an avocado chair, in the shape of an avocado",
    "a sign that says CAT",
    "it's a cat's chair: don't sit",
    "naïve café façade 🥑",
]


@pytest.fixture(scope="session")
def captions() -> list[str]:
    return CAPTIONS


@pytest.fixture(scope="session")
def learned():
    """A tokenizer of each kind, with 60 merges."""
    return {kind: learn(CAPTIONS * 2, size, kind) for kind, size in (("clip", 574), ("glide", 317), ("dalle", 572))}


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of published vocabularies and of the ids that the published tokenizers give."""
    root = Path(os.environ.get("DALLE_PARITY") or Path(__file__).parents[2] / "../shared/parity")
    if not (root / "tokenizers").is_dir():
        pytest.skip("the published vocabularies are not part of the repository; DALLE_PARITY names their folder")
    return root / "tokenizers"
