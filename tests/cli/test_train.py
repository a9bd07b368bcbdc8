import pytest

from dalle_cli.recipe import to_yaml
from tests.cli.conftest import one_line
from tests.training.conftest import RECIPE


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.yaml").write_text(to_yaml(RECIPE))
    return "mine.yaml"


def test_run_starts_and_resumes(dalle, mine, tmp_path):
    ended = dalle("train-dvae", "--recipe", mine, "train.steps=2", "train.preview_images=0")
    assert (ended.code, ended.out) == (0, "")
    assert "1 process on cpu, precision float32" in ended.err
    assert (tmp_path / "checkpoints" / "dvae-mine" / "model.safetensors").exists()
    again = dalle("train-dvae", "--recipe", mine, "train.steps=2", "train.preview_images=0")
    assert again.code == 0
    assert "from step 2" in again.err
    other = dalle("train-dvae", "--recipe", mine, "train.steps=3", "-q")
    assert other.code == 73
    assert one_line(other.err)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--recipe", "mine.yaml", "model.hiden=8"], 2, "did you mean 'n_hid'"),
        (["--recipe", "mine.yaml", "train.steps=many"], 2, "train.steps"),
        (["--recipe", "mine.yaml", "train.steps"], 2, "train.steps"),
        (["--recipe", "mein.yaml"], 2, "mein.yaml"),
        (["--recipe", "tinny"], 2, "did you mean 'tiny'"),
        (["--recipe", "mine.yaml", "data.type=folder", "data.path=nowhere"], 3, "nowhere"),
        (
            ["--recipe", "mine.yaml", "train.grad_accum_steps=3"],
            2,
            "train.batch_size: 8 does not divide by grad_accum_steps=3",
        ),
        (["--recipe", "mine.yaml", "--max-time", "soon"], 2, "'soon' is not a time"),
        (["--recipe", "mine.yaml", "--resume", "maybe"], 2, "choose one of auto, no, changed"),
        (["--recipe", "mine.yaml", "train.init_from=nowhere"], 3, "no checkpoint 'nowhere'"),
        (["--recipe", "openai"], 2, "no data given"),
    ],
)
def test_wrong_usage_is_one_line(dalle, mine, words, code, message):
    ended = dalle("train-dvae", *words, "-q")
    assert ended.code == code, ended.err
    assert one_line(ended.err.splitlines(keepends=True)[-1])
    assert message in ended.err


def test_recipes_of_other_families_are_refused(dalle, mine, tmp_path):
    ended = dalle("train-clip", "--recipe", mine)
    assert ended.code == 2
    assert ended.err == "dalle: mine.yaml: a recipe of `dalle train-dvae`, not of `dalle train-clip`\n"
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("command", ["train-dvae", "train-clip", "train-prior", "train-decoder"])
def test_starter_is_the_default(dalle, command):
    ended = dalle(command, "--dry-run", "-q")
    if ended.code:  # the emoji font is not needed for that
        pytest.fail(ended.err)
    assert "objects: everyday" in ended.out
