import numpy as np
import pytest

from dalle_cli.exits import Failure
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.sample import SampleOptions, sample
from dalle_cli.images import decode
from dalle_cli.registry import RecipeError
from dalle_cli.systems.loading import load_system, resolve, system_class


def same(image, path):
    return np.array_equal(np.asarray(image), np.asarray(decode(path)))


def test_options_replace_those_of_the_recipe(tiny):
    assert resolve(tiny.recipe).options.temperature == 0.9
    resolved = resolve(tiny.recipe, {"temperature": 0.5, "top_k": None})
    assert (resolved.options.temperature, resolved.options.top_k) == (0.5, None)
    assert resolved.with_options(temperature=0.25).options.temperature == 0.25
    with pytest.raises(RecipeError, match="did you mean 'temperature'"):
        resolve(tiny.recipe, {"temprature": 0.5})


def test_defaults_yield_to_options_and_unknown_ones_are_listed(tiny):
    resolved = resolve(tiny.recipe, {"top_k": 3}, defaults={"top_k": 9, "top_p": 0.5, "steps": "27"})
    assert (resolved.options.top_k, resolved.options.top_p) == (3, 0.5)
    assert resolved.unknown_options == ("steps",)


def test_reranker_can_be_replaced(tiny):
    assert resolve(tiny.recipe).reranker == (tiny.clip,)
    other = resolve(tiny.recipe, reranker=["starter/clip"])
    assert (other.reranker, other.reranker_source) == (("starter/clip",), "--reranker")


def test_transformer_checkpoint_borrows_the_reranker(tiny):
    resolved = resolve(tiny.dalle)
    assert resolved.reranker == ("starter/clip", "starter/noised-clip")
    assert resolved.reranker_source == "recipe dalle1"


def test_system_without_reranker_names_the_remedy(glide):
    with pytest.raises(RecipeError, match="name one with --reranker"):
        resolve(glide.decoder).require_reranker()


def test_offload_is_refused_for_one_model(tiny, glide):
    with pytest.raises(Failure, match="consists of one model"):
        resolve(tiny.recipe).choose_device(offload=True)
    assert resolve(glide.recipe).choose_device("float32", offload=True).offload


def test_class_is_known_without_valid_options(unclip, tiny):
    assert system_class(unclip.recipe).has_latents
    assert not system_class(tiny.recipe).has_latents


@pytest.mark.parametrize("kind", ["tiny", "glide", "unclip"])
def test_python_gives_the_images_of_the_command(kind, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = request.getfixturevalue(kind).recipe
    prompts = ["a red circle", "zebra"]
    results = Collected()
    options = SampleOptions(recipe=recipe, num_images=2, seed=3, precision="float32", quiet=True)
    sample(prompts, options, results=results)
    system = load_system(recipe, precision="float32")
    images = system.generate(prompts, num_images=2, seed=3)
    assert all(
        same(image, result["path"]) for image, result in zip([*images[0], *images[1]], results.reported, strict=True)
    )
    assert images[0][0].size == (system.size, system.size)
    ((by_seed, other),) = system.generate(prompts[:1], seeds=[[3, 4]])
    assert same(by_seed, results.reported[0]["path"])
    assert not same(other, results.reported[0]["path"])


def test_python_refuses_what_cannot_be_generated(tiny):
    system = load_system(tiny.recipe, precision="float32", temperature=0.5)
    assert system.resolved.options.temperature == 0.5
    with pytest.raises(ValueError, match="1 lists of seeds for 2 prompts"):
        system.generate(["a", "b"], seeds=[[1]])
    with pytest.raises(RecipeError, match="takes no 'steps'"):
        system.generate(["a"], steps="3")
    with pytest.raises(TypeError, match="expected a list"):
        system.generate("a")


def test_prompts_may_have_different_numbers_of_seeds(tiny):
    system = load_system(tiny.recipe, precision="float32")
    one, two = system.generate(["a red circle", "zebra"], seeds=[[1], [1, 2]])
    assert (len(one), len(two)) == (1, 2)
    assert np.array_equal(np.asarray(system.generate(["zebra"], seeds=[[2]])[0][0]), np.asarray(two[1]))
