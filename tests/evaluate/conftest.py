from functools import cache

import pytest

from dalle_cli.data.scenes.objects import MissingFont, load_object_set
from dalle_cli.evaluate.checker import SceneChecker
from tests.cli.conftest import dalle  # noqa: F401  (a fixture)


@cache
def checker_of(name: str) -> SceneChecker:
    return SceneChecker(load_object_set(name))


@pytest.fixture(params=["shapes", "everyday"])
def checker(request) -> SceneChecker:
    """The checker of each set of objects, cached because rendering them takes a second."""
    try:
        return checker_of(request.param)
    except MissingFont as error:
        pytest.skip(str(error))
