import pytest
import torch

from dalle_cli.models import MOST_TENSORS, models
from dalle_cli.registry import RecipeError

VIT = {"type": "vit", "size": 32, "patch_size": 16, "width": 16, "depth": 1, "heads": 2}


@pytest.mark.parametrize("value", [-1, 1 << 24, 10**30])
def test_impossible_numbers_are_refused_early(value):
    with pytest.raises(RecipeError, match=rf"model\.width: {value} is not between 0 and 16777216"):
        models.typed({**VIT, "width": value}, "model")


def test_too_many_layers_are_refused():
    with torch.device("meta"), pytest.raises(RecipeError, match=f"model: more than {MOST_TENSORS} tensors"):
        models.build({**VIT, "depth": 1 << 23}, "model")
    assert len(list(models.build(VIT).parameters())) < 30  # the count does not outlast the one that it stopped


def test_constructor_errors_become_recipe_errors():
    with pytest.raises(RecipeError, match=r"^image: size 33 is not divisible by patch_size 16"):
        models.build({**VIT, "size": 33}, "image")
