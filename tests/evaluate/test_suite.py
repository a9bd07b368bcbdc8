import random

import numpy as np
import pytest

from dalle_cli.data.scenes.grammar import Scene, SceneObject, held_out, held_out_combinations, parse
from dalle_cli.data.scenes.objects import load_object_set
from dalle_cli.data.scenes.render import place, render
from dalle_cli.data.source import DataError
from dalle_cli.evaluate.checker import Claim, SceneChecker, SceneResult
from dalle_cli.evaluate.statistics import Proportion
from dalle_cli.evaluate.suite import (
    CATEGORIES,
    SceneReport,
    SuiteItem,
    check_images,
    from_folder,
    item_of,
    shuffled,
    suite,
)
from dalle_cli.images import save_png


def images_of(checker: SceneChecker, items: list[SuiteItem]) -> list[np.ndarray]:
    return [
        render(i.scene, place(i.scene, random.Random(n)), 64, checker.object_set.drawn)
        for n, i in enumerate(items)
        if i.scene
    ]


def test_suite_is_balanced_held_out_and_distinct(checker):
    items = suite(checker.object_set)
    assert len(items) == 200
    assert len({item.caption for item in items}) == 200
    for name, category in CATEGORIES.items():
        scenes = [item.scene for item in items if item.category == name and item.scene]
        assert len(scenes) == 40
        assert {scene.kind for scene in scenes} == {category.scene}
        for scene in scenes:
            assert held_out(scene)
            assert {combination[0] for combination in held_out_combinations(scene)} == {category.held_out}


def test_captions_describe_the_scenes(checker):
    assert all(parse(item.caption, checker.object_set) == item.scene for item in suite(checker.object_set, 50))


def test_suite_is_a_function_of_its_seed(checker):
    assert suite(checker.object_set, 20) == suite(checker.object_set, 20)
    assert suite(checker.object_set, 20, seed=1) != suite(checker.object_set, 20)
    assert [len([i for i in suite(checker.object_set, 7) if i.category == name]) for name in CATEGORIES] == [
        2,
        2,
        1,
        1,
        1,
    ]


def test_avocado_chair_comes_first(checker):
    combination = [item.caption for item in suite(checker.object_set, 10) if item.category == "combination"]
    if checker.object_set.natural_colors:
        assert combination == ["an avocado chair", "a strawberry teapot"]
    else:
        assert len(combination) == 2


def test_too_many_captions_are_refused():
    with pytest.raises(
        ValueError, match=r"'shapes' give \d+ held-out scenes for 'single', not 200: lower --num-captions"
    ):
        suite(load_object_set("shapes"), 1000)


def test_rendered_images_match_and_shuffled_ones_do_not(checker):
    items = suite(checker.object_set, 30)
    images = images_of(checker, items)
    report = check_images(checker, items, images)
    assert {name: (s.successes, s.trials) for name, s in report.accuracy().items()} == dict.fromkeys(CATEGORIES, (6, 6))
    assert report.exact_match() == report.accuracy()
    control = check_images(checker, shuffled(items), images)
    assert sum(one.successes for one in control.exact_match().values()) == 0
    # The rest is coincidence: two scenes of a category can have an object or a background in common.
    assert sum(one.successes for one in control.accuracy().values()) <= 6


def test_shuffling_moves_captions_within_categories():
    items = suite(load_object_set("shapes"), 25)
    moved = shuffled(items)
    assert sorted(item.caption for item in moved) == sorted(item.caption for item in items)
    assert [item.category for item in moved] == [item.category for item in items]
    assert all(a.caption != b.caption for a, b in zip(items, moved))


def test_category_counts_its_own_claims():
    def result(**claims: bool) -> SceneResult:
        return SceneResult(tuple(Claim(part, "x", correct) for part, correct in claims.items()))

    items = tuple(
        SuiteItem(name, Scene((SceneObject("circle"),)), name) for name in ("background", "relation", "combination")
    )
    results = (
        result(object=False, background=True),
        result(object=True, relation=False, background=True),
        result(object=True, texture=True, rest=False),
    )
    report = SceneReport(items, results)
    assert {name: one.successes for name, one in report.accuracy().items()} == {
        "background": 1, "relation": 0, "combination": 1,
    }  # fmt: skip
    assert all(one.successes == 0 for one in report.exact_match().values())
    assert report.claims()["object"] == Proportion(2, 3)


def test_report_is_a_table_with_intervals():
    items = suite(load_object_set("shapes"), 5)
    correct = SceneResult((Claim("object", "circle", True),))
    wrong = SceneResult((Claim("object", "circle", False, "star"),))
    report = SceneReport(
        (*items, SuiteItem("outside", None, "a fox")), (correct, correct, wrong, correct, correct, SceneResult(()))
    )
    lines = str(report).splitlines()
    assert " ".join(lines[1].split()) == "single 1 100.0% (20.7% to 100.0%) 100.0% (20.7% to 100.0%)"
    assert lines[3].split()[:3] == ["pair", "1", "0.0%"]
    assert lines[-1] == "1 captions are outside the grammar of the scenes and were not checked"


def test_folder_of_captioned_images(tmp_path):
    checker = SceneChecker(load_object_set("shapes"))
    from PIL import Image

    captions = ["a red circle", "a blue star left of a pink heart on a grey background", "an oil painting"]
    for i, text in enumerate(captions):
        scene = parse(text, checker.object_set) or Scene((SceneObject("bar", "green"),))
        pixels = render(scene, place(scene, random.Random(i)), 64, drawn=True)
        save_png(Image.fromarray(pixels), tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"{text}\nanother caption\n")
    items, images = zip(*from_folder(str(tmp_path), checker.object_set))
    assert [(item.category, item.caption) for item in items] == list(zip(("single", "relation", "outside"), captions))
    report = check_images(checker, items, images)
    assert [result.exact_match for result in report.results] == [True, True, False]


def test_missing_folder_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        next(from_folder(str(tmp_path / "none"), load_object_set("shapes")))


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("a red star", "single"),
        ("a red star on a blue background", "background"),
        ("a red heart star", "combination"),
        ("two red stars on a blue background", "count"),
        ("a sign that says ring", "sign"),
        ("a red star and a blue bar", "pair"),
        ("a red star above a blue bar", "relation"),
        ("a fox", "outside"),
    ],
)
def test_categories_of_captions(text, category):
    assert item_of(text, load_object_set("shapes")).category == category
