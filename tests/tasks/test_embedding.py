"""What unCLIP's tasks read from a CLIP."""

import pytest
import torch

from dalle_cli.models import models
from dalle_cli.tasks import embedding
from tests.tasks.priors import CAPTIONS, CLIP, SIZE, words


def test_embeddings_are_the_clip_s_features():
    clip, tokenizer = models.build(CLIP).eval(), words()
    image = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    torch.testing.assert_close(embedding.embed(clip, image), clip.encode_image(image))
    larger = torch.nn.functional.interpolate(image, 4 * SIZE, mode="bicubic")
    assert embedding.embed(clip, larger).shape == (2, 8)
    text, states, real = embedding.read(clip, embedding.pack(clip, tokenizer, CAPTIONS))
    ids, mask = tokenizer.pack(CAPTIONS, clip.text.context)
    torch.testing.assert_close(text, clip.encode_text(torch.from_numpy(ids)))
    torch.testing.assert_close(states, clip.text.states(torch.from_numpy(ids)))
    assert torch.equal(real, torch.from_numpy(mask))


def test_a_tokenizer_that_cannot_be_the_clip_s_is_refused():
    with pytest.raises(ValueError, match="there is none"):
        embedding.check(models.build(CLIP), None)
    small = models.build(CLIP | {"text": {**CLIP["text"], "vocab": 100}})
    with pytest.raises(ValueError, match="of 100 entries"):
        embedding.check(small, words())
