from functools import cache

import pytest

from dalle_cli.data.scenes.glyphs import MissingFont, glyph_set
from dalle_cli.evaluate.checker import Judge


@cache
def made(name: str) -> Judge:
    return Judge(glyph_set(name))


@pytest.fixture(params=["shapes", "everyday"])
def judge(request) -> Judge:
    """The judge of each set of glyphs; drawing its glyphs takes a second, so it is made once."""
    try:
        return made(request.param)
    except MissingFont as error:
        pytest.skip(str(error))
