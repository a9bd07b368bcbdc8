"""GLIDE's tokenizer: GPT-2's byte pairs on lower-case text, no start or end (Nichol et al. 2022, section 3)."""

from . import tokenizers
from .tokenizer import Tokenizer
from .words import gpt2_words


@tokenizers.register("glide")
class GlideTokenizer(Tokenizer):
    """256 byte symbols, the merges, and the end token, which pads; 50,257 entries as published."""

    kind = "glide"
    suffix = ""
    specials = ("<|endoftext|>",)
    split = staticmethod(gpt2_words)
    published_sha256 = "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0"

    @property
    def pad(self) -> int:
        return self.vocab_size - 1
