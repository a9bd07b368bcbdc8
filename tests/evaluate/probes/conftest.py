import pytest

from tests.fixtures.miniatures import noise


@pytest.fixture
def probe(dalle, tmp_path):
    """Run `dalle probe` with two steps and shapes, in a folder with an image dog.png."""
    noise(1, 24, 16).save(tmp_path / "dog.png")

    def run(name, *words, code=0, **how):
        ended = dalle("probe", name, *words, "--objects", "shapes", "--steps", 2, "-q", **how)
        assert ended.code == code, ended.err
        return ended

    return run
