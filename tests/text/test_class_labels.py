import pytest

from dalle_cli.text.class_labels import check_class_names, class_labels

NAMES = ["bear", "polar bear", "circle"]


def test_a_caption_is_a_number_or_holds_a_name():
    assert class_labels(["2", " 0 "], None, 3).tolist() == [2, 0]
    assert class_labels(["A Red Circle.", "a polar bear", "bears and a bear"], NAMES, 3).tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        ("3", None, "'3' names no class: it must contain a number from 0 to 2"),
        ("-1", None, "'-1' names no class"),
        ("semicircles", NAMES, "'semicircles' names no class: it must contain a name from task.classes"),
        ("", NAMES, "'' names no class"),
    ],
)
def test_a_caption_of_no_class_is_named(text, names, said):
    with pytest.raises(ValueError, match=said):
        class_labels([text], names, 3)


def test_there_are_as_many_names_as_classes():
    check_class_names(None, 5)
    check_class_names(NAMES, 3)
    with pytest.raises(ValueError, match=r"task\.classes: 3 names for a model of 4 classes"):
        check_class_names(NAMES, 4)
