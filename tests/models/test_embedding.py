import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models import embedding
from tests.tasks.conftest import CAPTIONS, clip, clip_words, words


def test_text_embedding_and_states():
    one = clip()
    ids, real = embedding.tokenize(one, clip_words(), CAPTIONS)
    found, states, seen = embedding.read_texts(one, (ids, real))
    assert (found.shape, states.shape) == ((2, 8), (2, 10, 16))
    assert torch.equal(seen, real)
    torch.testing.assert_close(found, one.encode_text(ids))
    torch.testing.assert_close(states, one.text.states(ids))
    assert not found.requires_grad


def test_images_are_resized_to_the_tower():
    one = clip()
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(embedding.embed_images(one, image), one.encode_image(image))
    large = F.interpolate(image, 48, mode="bicubic").clamp(-1, 1)
    small = F.interpolate(large, 16, mode="bicubic", antialias=True).clamp(-1, 1)
    torch.testing.assert_close(embedding.embed_images(one, large), one.encode_image(small))


def test_other_tokenizers_are_refused():
    embedding.check_tokenizer(clip(), clip_words())
    embedding.check_tokenizer(clip(), words())  # 260 entries go into 520
    with pytest.raises(ValueError, match="of 520 entries, and there is none"):
        embedding.check_tokenizer(clip(), None)
    larger = clip_words()
    larger.vocab_size = 521
    with pytest.raises(ValueError, match="there is one of 521 entries"):
        embedding.check_tokenizer(clip(), larger)
