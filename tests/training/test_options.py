import pytest

from dalle_cli.registry import RecipeError
from dalle_cli.training.options import Train, check, interval, options, seconds


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30), ("10m", 600), ("3h50m", 13_800), ("1d", 86_400), ("1h0m5s", 3605), (" 2m ", 120)]
)
def test_times(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "m", "10", "1.5h", "10m3h", "-5s", "soon"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(RecipeError, match=r"--max-time: .* is not a time such as"):
        seconds(text)


def test_saving_goes_by_steps_or_by_time():
    assert interval("1000") == (1000, 0.0)
    assert interval("30m") == (0, 1800)
    with pytest.raises(RecipeError, match="0 never saves"):
        interval("0")


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"steps": 0}, "train.steps: 0 is not between 1"),
        ({"batch_size": 1 << 41}, "train.batch_size"),
        ({"ema_decay": 1.0}, r"train.ema_decay: 1.0 is not in \[0, 1\)"),
        ({"save_every": "often"}, "train.save_every: 'often' is not a time"),
    ],
)
def test_numbers_that_make_no_run_are_refused(numbers, said):
    with pytest.raises(RecipeError, match=said):
        Train(**{"steps": 1, "batch_size": 1, **numbers})


def test_values_are_typed_by_the_signature(recipe):
    typed = recipe(train={"steps": "010", "ema_decay": "0.5"}, optim={"lr": "1e-4"})
    assert typed["train"]["steps"] == 10
    assert (typed["train"]["ema_decay"], typed["optim"]["lr"]) == (0.5, 1e-4)
    optim, train, tracker = options(typed)
    assert (optim.lr, train.steps, tracker.report_to) == (1e-4, 10, [])


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"train": {"stepz": 3}}, r"train\.stepz: .*did you mean 'steps'"),
        ({"model": {"hiden": 3}}, r"model\.hiden: .*did you mean 'n_hid'"),
        ({"task": {"kl_weight": "much"}}, r"task\.kl"),
        ({"data": {"sise": 3}}, r"data\.sise: .*did you mean 'size'"),
    ],
)
def test_misspelt_keys_are_named_with_what_was_meant(recipe, section, said):
    with pytest.raises(RecipeError, match=said):
        check(recipe(**section))
