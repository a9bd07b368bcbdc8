import typing

from dalle_cli.hardware.precision import CHOICES
from dalle_cli.training.options import Train


def test_recipes_take_the_same_names():
    assert typing.get_args(Train.__annotations__["precision"]) == CHOICES
