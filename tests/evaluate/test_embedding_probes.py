import pytest
import torch
from PIL import Image

from dalle_cli.evaluate import embedding_probes
from dalle_cli.exits import DONE, Failure
from dalle_cli.generate.latent_editor import Job
from dalle_cli.generate.metadata import read
from dalle_cli.generate.outputs import Collected
from dalle_cli.systems.unclip import UnCLIP
from tests.fixtures.miniatures import noise


@pytest.fixture
def job(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise(1, 24, 16).save("dog.png")
    return lambda steps="2", **how: Job(unclip.recipe, {"steps": steps}, precision="float32", quiet=True, **how)


def basis(size):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(20, 3, size, size, generator=generator) * 2 - 1 for _ in range(2)]


def test_more_components_come_nearer_to_the_picture(job):
    found = Collected()
    assert embedding_probes.pca(["dog.png"], [1, 4], basis, job("16", sheet="s.png"), found) == DONE
    assert [one["components"] for one in found.reported] == [1, 4, 8]
    shares = [one["variance"] for one in found.reported]
    assert 0 < shares[0] < shares[1] < shares[2] == 1
    nearness = [one["psnr"] for one in found.reported]
    assert nearness[2] > 25
    assert nearness[2] > nearness[1] - 0.5
    assert nearness[2] > nearness[0]
    assert Image.open("s.png").size[0] == 4 * 136 + 8
    assert read(found.reported[0]["path"])["dalle"]["result"]["components"] == 1
    with pytest.raises(Failure, match="9 components: embeddings have 8 of them"):
        embedding_probes.pca(["dog.png"], [9], basis, job(out="b"), Collected())


def test_three_ways_to_drive_a_decoder(job, monkeypatch):
    seen = []
    decode = UnCLIP.decode

    def watched(self, embeddings, texts, x, *rest, **how):
        own = [None] * len(texts) if embeddings is None else embeddings
        seen.extend(zip(own, texts, x))
        return decode(self, embeddings, texts, x, *rest, **how)

    monkeypatch.setattr(UnCLIP, "decode", watched)
    found = Collected()
    assert embedding_probes.prior(["a star", "a circle"], None, 2, job(sheet="s.png"), found) == DONE
    assert [one["drive"] for one in found.reported] == [*embedding_probes.DRIVES] * 4
    assert [one["prompt"] for one in found.reported] == ["a star"] * 6 + ["a circle"] * 6
    assert all(-1 <= one["score"] <= 1 for one in found.reported)
    assert Image.open("s.png").size[0] == 3 * 136 + 8
    without = [text for z, text, _ in seen if z is None]
    assert sorted(without) == ["a circle"] * 2 + ["a star"] * 2
    told = [z for z, text, _ in seen if z is not None and text == "a star"]
    assert len({tuple(z.tolist()) for z in told}) == 3  # the text's own for both, and two of the prior's
    for text in ("a star", "a circle"):
        starts = [x for _, own, x in seen if own == text]
        assert len({tuple(x.flatten().tolist()) for x in starts}) == 2  # each noise serves all three


def test_ways_to_drive_a_decoder_that_reads_nothing(job, monkeypatch):
    seen = []
    decode = UnCLIP.decode

    def watched(self, embeddings, texts, *rest, **how):
        seen.extend(zip([None] * len(texts) if embeddings is None else embeddings, texts))
        return decode(self, embeddings, texts, *rest, **how)

    monkeypatch.setattr(UnCLIP, "decode", watched)
    found = Collected()
    assert embedding_probes.prior(["a star"], None, 1, job(), found, wordless=True) == DONE
    assert [one["drive"] for one in found.reported] == ["nothing", "text embedding", "prior"]
    assert [one["prompt"] for one in found.reported] == ["a star"] * 3
    assert [text for _, text in seen] == [""] * 3
    assert [z is None for z, _ in seen].count(True) == 1


def test_nothing_to_draw(job):
    with pytest.raises(Failure, match="drive the decoder by what"):
        embedding_probes.prior([], None, 1, job())
