import pickle

import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.models.embedding import Texts
from dalle_cli.tasks.collators import check_side
from dalle_cli.tasks.decoder import DecoderTask

STARTERS = ("dvae", "clip", "noised-clip", "dalle", "prior", "prior-ar", "decoder", "upsampler")


@pytest.fixture(scope="module", params=STARTERS)
def task(request):
    return checkpoint.load(f"starter/{request.param}")


def samples(task) -> list[dict]:
    """Two samples of the size that a task is trained on."""
    size = task.size if isinstance(task, DecoderTask) else 64
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (2, 3, size, size), generator=generator, dtype=torch.uint8)
    texts = ["a cat", "a red circle and a blue square"]
    return [
        {"image": image, "text": text, "key": text, "seed": seed}
        for seed, (image, text) in enumerate(zip(images, texts))
    ]


@pytest.mark.parametrize("held_out", [False, True])
def test_collator_is_small_and_has_no_network(task, held_out):
    data = pickle.dumps(task.collator(held_out))
    assert len(data) < 300_000
    assert b"torch.nn" not in data


def test_pickled_collator_makes_the_same_batch(task):
    collator = task.collator()
    batch = collator(samples(task))
    again = pickle.loads(pickle.dumps(collator))(samples(task))
    assert batch.keys() == again.keys()
    for name, value in batch.items():
        assert torch.equal(value, again[name]) if isinstance(value, torch.Tensor) else value == again[name]


def test_texts_too_long_are_cut_and_masked():
    tokenizer = checkpoint.load("starter/dalle").tokenizer
    ids, real = Texts(tokenizer, 4)(["a", "a cat and a dog and a bird"])
    assert ids.shape == real.shape == (2, 4)
    assert real.sum(dim=1).tolist() == [len(tokenizer.encode("a")), 4]


def test_other_sides_are_refused_with_the_key():
    with pytest.raises(ValueError, match=r"generates 64 px, not 32: set data\.size=64"):
        check_side(torch.zeros(3, 32, 32), 64, 64)
