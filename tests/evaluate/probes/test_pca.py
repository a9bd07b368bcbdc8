import pytest
from PIL import Image

from dalle_cli import evaluate
from dalle_cli.evaluate.generated import Generation
from dalle_cli.exits import DONE, Failure
from dalle_cli.generate.metadata import read
from tests.cli.conftest import one_line
from tests.fixtures.miniatures import noise


@pytest.fixture
def pca(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise(1, 24, 16).save("dog.png")

    def run(components, steps="2", out="out"):
        options = Generation(steps=steps, out=out, precision="float32", quiet=True)
        return evaluate.probe_pca(
            ["dog.png"], components, num_scenes=40, objects="shapes", recipe=unclip.recipe, options=options
        )

    return run


def test_more_components_come_closer_to_the_image(pca):
    result = pca([1, 4], "16")
    assert result.exit_code == DONE
    assert [one["components"] for one in result.images] == [1, 4, 8]
    variance = [one["variance"] for one in result.images]
    assert 0 < variance[0] < variance[1] <= variance[2] == 1
    psnr = [one["psnr"] for one in result.images]
    assert psnr[2] > 25
    assert psnr[2] > psnr[1] - 0.5
    assert psnr[2] > psnr[0]
    assert [label for _, label in result.rows[0]] == [
        "original: dog.png",
        "1 component",
        "4 components",
        "8 components",
    ]
    assert read(result.images[0]["path"])["dalle"]["result"]["components"] == 1


def test_too_many_components_are_refused(pca):
    with pytest.raises(Failure, match="--components 9: the embeddings have 8 dimensions"):
        pca([9])


@pytest.mark.slow
def test_command_computes_components_from_own_images(probe, unclip, tmp_path):
    words = ("pca", "dog.png", "--recipe", unclip.recipe, "--components", "1,3")
    lines = probe(*words, "--num-scenes", 30, "--sheet", "s.png").results
    assert [one["components"] for one in lines] == [1, 3, 8]
    (tmp_path / "many").mkdir()
    for number in range(3):
        noise(number, 20, 12).save(tmp_path / "many" / f"{number}.png")
    own = probe(*words, "--pca-images", "many", "--out", "b").results
    assert own[0]["variance"] != lines[0]["variance"]
    assert own[1]["variance"] == 1  # three images have two components
    assert Image.open("s.png").size[0] == 4 * 136 + 8


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("none.png",), 3, "no file 'none.png'"),
        (("dog.png", "--components", "0"), 2, "integers from 1"),
        (("dog.png", "--pca-images", "."), 3, "principal components of 1 image: give at least two"),
    ],
)
def test_usage_errors_are_one_line(probe, unclip, words, code, message):
    ended = probe("pca", *words, "--recipe", unclip.recipe, code=code)
    assert one_line(ended.err)
    assert message in ended.err


@pytest.mark.parametrize("words", [("pca", "dog.png"), ("prior", "a red circle"), ("typographic", "dog.png", "x")])
def test_missing_weights_are_named(probe, words):
    ended = probe(*words, "--recipe", "unclip-tiny", code=3)
    assert one_line(ended.err)
    assert "no checkpoint 'checkpoints/" in ended.err
