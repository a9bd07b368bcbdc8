import pytest

from dalle_cli.recipe import to_yaml
from dalle_cli.systems import system_file
from dalle_cli.training import start
from tests.cli.conftest import one_line
from tests.data.conftest import picture
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
        (["--recipe", "mine.yaml", "--resume", "maybe"], 2, "choose one of auto, no, force"),
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


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.png").write_bytes(picture(size=(40, 20)))
        (folder / f"{number}.txt").write_text(f"a red bar, number {number}")
    return folder


SMALL = (
    "train.steps=1", "train.batch_size=4", "data.num_workers=0", "train.preview_images=0", "train.precision=float32",
)  # fmt: skip


def test_own_folder_is_enough_for_a_first_clip(dalle, photos, tmp_path):
    ended = dalle("train-clip", "--recipe", "tiny", "data.path=photos", *SMALL)
    assert ended.code == 0, ended.err
    assert "data.type=folder, inferred from data.path=photos" in ended.err
    assert "learned a vocabulary of " in ended.err
    assert " entries from 12 captions" in ended.err
    assert (tmp_path / "checkpoints" / "clip-tiny" / "tokenizer.json").is_file()


def test_missing_tiny_checkpoint_names_the_command_that_trains_it(dalle):
    ended = dalle("train-prior", "--recipe", "dalle1-tiny", "-q")
    assert ended.code == 3
    assert "no checkpoint 'checkpoints/dvae-tiny' yet: train it first, dalle train-dvae --recipe tiny" in ended.err


def test_size_mismatch_names_the_keys_before_anything_is_built(dalle):
    ended = dalle("train-clip", "--recipe", "tiny", "data.size=64", "-q")
    assert ended.code == 2
    assert "set data.size=32, or model.image.size=64" in ended.err


@pytest.mark.parametrize("dry_run", [True, False])
def test_more_memory_than_is_free_is_refused(dalle, mine, monkeypatch, tmp_path, dry_run):
    monkeypatch.setattr("dalle_cli.training.preflight.free_memory", lambda device: 10 << 20)
    words = ["train-dvae", "--recipe", mine, "train.steps=1", "train.preview_images=0", "-q"]
    ended = dalle(*words, *(["--dry-run"] if dry_run else []))
    assert ended.code == 1
    assert "training needs about 0." in ended.err
    assert not (tmp_path / "checkpoints").exists()
    assert dalle(*words, "--dry-run", "--ignore-memory").code == 0


def test_dry_run_refuses_a_batch_larger_than_the_data(dalle, photos):
    ended = dalle("train-clip", "--recipe", "tiny", "data.path=photos", "train.batch_size=20000", "--dry-run")
    assert ended.code == 2
    assert "train.batch_size: 20000 exceeds the 12 training samples" in ended.err


def test_dry_run_says_absurd_numbers_of_epochs(dalle, photos):
    ended = dalle("train-clip", "--recipe", "tiny", "data.path=photos", "train.steps=100000", "train.batch_size=4",
                  "--dry-run")  # fmt: skip
    assert ended.code == 0
    assert "epochs: the model will memorize the 12 training samples" in ended.err


@pytest.mark.parametrize(("command", "said"), [("train-prior", True), ("train-dvae", False)])
def test_trained_prior_gets_a_system_file(dalle, monkeypatch, command, said):
    monkeypatch.setattr(start, "train", lambda *words, **options: 0)
    system = {"parts": {"transformer": "./model.safetensors", "reranker": "checkpoints/my-clip"}}
    monkeypatch.setattr(system_file, "write_system_file", lambda run: (run / "system.yaml", system))
    ended = dalle(command, "--run", "mine")
    assert ended.code == 0
    assert ("checkpoints/mine/system.yaml: reranker checkpoints/my-clip;" in ended.err) is said
