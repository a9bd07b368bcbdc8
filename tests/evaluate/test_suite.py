import random

import numpy as np
import pytest

from dalle_cli.data.scenes.draw import draw, place
from dalle_cli.data.scenes.glyphs import glyph_set
from dalle_cli.data.scenes.grammar import Scene, Thing, held_out, parse, withheld
from dalle_cli.data.source import DataError
from dalle_cli.evaluate.checker import Claim, Judge, Verdict
from dalle_cli.evaluate.suite import CATEGORIES, Item, Report, Share, category_of, from_folder, score, shuffled, suite
from dalle_cli.images import save_png


def pictures(judge: Judge, items: list[Item]) -> list[np.ndarray]:
    return [
        draw(i.scene, place(i.scene, random.Random(n)), 64, judge.glyphs.drawn) for n, i in enumerate(items) if i.scene
    ]


def test_the_suite_is_balanced_held_out_and_without_duplicates(judge):
    items = suite(judge.glyphs)
    assert len(items) == 200
    assert len({item.caption for item in items}) == 200
    for name, category in CATEGORIES.items():
        scenes = [item.scene for item in items if item.category == name and item.scene]
        assert len(scenes) == 40
        assert {scene.kind for scene in scenes} == {category.kind}
        for scene in scenes:
            assert held_out(scene)
            assert {combination[0] for combination in withheld(scene)} == {category.held}


def test_captions_say_what_the_scenes_are(judge):
    assert all(parse(item.caption, judge.glyphs) == item.scene for item in suite(judge.glyphs, 50))


def test_the_suite_is_a_function_of_its_seed(judge):
    assert suite(judge.glyphs, 20) == suite(judge.glyphs, 20)
    assert suite(judge.glyphs, 20, seed=1) != suite(judge.glyphs, 20)
    assert [len([i for i in suite(judge.glyphs, 7) if i.category == name]) for name in CATEGORIES] == [2, 2, 1, 1, 1]


def test_the_avocado_chair_comes_first(judge):
    combination = [item.caption for item in suite(judge.glyphs, 10) if item.category == "combination"]
    if judge.glyphs.own_colours:
        assert combination == ["an avocado chair", "a strawberry teapot"]
    else:
        assert len(combination) == 2


def test_more_than_the_set_can_hold_out_is_refused():
    with pytest.raises(ValueError, match=r"'shapes' has \d+ held-out scenes for 'single', not 200: lower count"):
        suite(glyph_set("shapes"), 1000)


def test_real_pictures_score_full_marks_and_shuffled_ones_next_to_none(judge):
    items = suite(judge.glyphs, 30)
    images = pictures(judge, items)
    report = score(judge, items, images)
    assert {name: (s.true, s.count) for name, s in report.figures().items()} == dict.fromkeys(CATEGORIES, (6, 6))
    assert report.wholes() == report.figures()
    control = score(judge, shuffled(items), images)
    assert sum(share.true for share in control.wholes().values()) == 0
    # What is left is coincidence: another scene of the set shares a glyph or a background now and then.
    assert sum(share.true for share in control.figures().values()) <= 6


def test_shuffling_keeps_the_categories_and_moves_every_caption():
    items = suite(glyph_set("shapes"), 25)
    moved = shuffled(items)
    assert sorted(item.caption for item in moved) == sorted(item.caption for item in items)
    assert [item.category for item in moved] == [item.category for item in items]
    assert all(a.caption != b.caption for a, b in zip(items, moved))


def test_a_category_counts_its_own_claims():
    def verdict(**claims: bool) -> Verdict:
        return Verdict(tuple(Claim(part, "x", true) for part, true in claims.items()))

    items = tuple(Item(name, Scene((Thing("circle"),)), name) for name in ("background", "relation", "combination"))
    verdicts = (
        verdict(object=False, background=True),
        verdict(object=True, relation=False, background=True),
        verdict(object=True, texture=True, rest=False),
    )
    report = Report(items, verdicts)
    assert {name: share.true for name, share in report.figures().items()} == {
        "background": 1, "relation": 0, "combination": 1,
    }  # fmt: skip
    assert all(share.true == 0 for share in report.wholes().values())
    assert report.claims()["object"] == Share(2, 3)


def test_the_report_is_a_table_with_intervals():
    items = suite(glyph_set("shapes"), 5)
    true, false = Verdict((Claim("object", "circle", True),)), Verdict((Claim("object", "circle", False, "star"),))
    report = Report((*items, Item("outside", None, "a fox")), (true, true, false, true, true, Verdict(())))
    lines = str(report).splitlines()
    assert " ".join(lines[1].split()) == "single 1 100.0% (20.7% to 100.0%) 100.0% (20.7% to 100.0%)"
    assert lines[3].split()[:3] == ["pair", "1", "0.0%"]
    assert lines[-1] == "1 captions are outside the grammar of the scenes and were not judged"


@pytest.mark.parametrize(
    ("true", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (40, 40, 0.9124, 1.0), (0, 0, 0, 1)],
)
def test_wilson_intervals(true, count, low, high):
    assert Share(true, count).interval == pytest.approx((low, high), abs=2e-4)


def test_items_come_from_a_folder_of_pictures_with_captions(tmp_path):
    judge = Judge(glyph_set("shapes"))
    from PIL import Image

    captions = ["a red circle", "a blue star left of a pink heart on a grey background", "an oil painting"]
    for i, text in enumerate(captions):
        scene = parse(text, judge.glyphs) or Scene((Thing("bar", "green"),))
        pixels = draw(scene, place(scene, random.Random(i)), 64, drawn=True)
        save_png(Image.fromarray(pixels), tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"{text}\nanother caption\n")
    items, images = zip(*from_folder(str(tmp_path), judge.glyphs))
    assert [(item.category, item.caption) for item in items] == list(zip(("single", "relation", "outside"), captions))
    report = score(judge, items, images)
    assert [verdict.true for verdict in report.verdicts] == [True, True, False]


def test_a_missing_folder_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        next(from_folder(str(tmp_path / "none"), glyph_set("shapes")))


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
    assert category_of(parse(text, glyph_set("shapes"))) == category
