import pytest

from dalle_cli.diffusion.respacing import timesteps

TABLE = {
    "7": "0 166 333 500 666 832 999",
    "25": "0 42 83 125 166 208 250 291 333 375 416 458 500 541 583 624 666 708 749 791 832 874 916 957 999",
    "27": "0 38 77 115 154 192 231 269 307 346 384 423 461 499 538 576 615 653 692 730 768 807 845 884 922 961 999",
    "50": "0 20 41 61 82 102 122 143 163 183 204 224 245 265 285 306 326 347 367 387 408 428 449 469 489 510 530 550"
    " 571 591 612 632 652 673 693 714 734 754 775 795 816 836 856 877 897 917 938 958 979 999",
    "10,10,3,2,2": "0 22 44 66 88 111 133 155 177 199 200 222 244 266 288 311 333 355 377 399 400 500 599 600 799 800"
    " 999",
}


@pytest.mark.parametrize("spec", TABLE)
def test_the_published_steps(spec):
    assert timesteps(spec) == [int(step) for step in TABLE[spec].split()]


def test_fast27_ends_two_earlier():
    assert timesteps("fast27") == [*timesteps("10,10,3,2,2")[:-1], 997]


@pytest.mark.parametrize(("spec", "stride"), [("ddim5", 200), ("ddim25", 40), ("ddim50", 20), ("ddim250", 4)])
def test_ddim_takes_every_nth(spec, stride):
    assert timesteps(spec) == list(range(0, 1000, stride))


def test_ends_of_longer_lists():
    assert timesteps("100")[:8] == [0, 10, 20, 30, 40, 50, 61, 71]
    assert timesteps("100")[-8:] == [928, 938, 949, 959, 969, 979, 989, 999]
    assert timesteps("250")[-8:] == [971, 975, 979, 983, 987, 991, 995, 999]
    assert timesteps("1000") == timesteps("ddim1000") == list(range(1000))


def test_ddim_counts():
    good = []
    for count in range(1, 1001):
        try:
            assert len(timesteps(f"ddim{count}")) == count
            good.append(count)
        except ValueError:
            pass
    assert good == [
        *range(2, 37), 38, 39, 40, 42, 44, 46, 48, 50, 53, 56, 59, 63, 67, 72, 77, 84, 91, 100, 112, 125, 143, 167,
        200, 250, 334, 500, 1000,
    ]  # fmt: skip


def test_sections_of_other_totals():
    assert timesteps("2,1", 5) == [0, 2, 3]  # the first section is one longer
    assert timesteps("1", 10) == [0]
    assert timesteps(" 3, 3 ", 8) == [0, 2, 3, 4, 6, 7]  # 1.5 and 5.5 round to even, within their section


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ddim37", "'ddim37': no stride over 1000 steps keeps 37; take ddim36 or ddim38, or '37'"),
        ("1001", "1001 of a section of 1000 steps"),
        ("600,1", "600 of a section of 500 steps; there are 1000 in all"),
        ("", "expected a number"),
        ("ten", "expected a number"),
        ("0", "expected a number"),
        ("5,", "expected a number"),
        ("ddim-5", "expected a number"),
    ],
)
def test_other_text_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        timesteps(spec)
