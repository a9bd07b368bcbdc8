"""CLIP's tokenizer: start and end tokens around the text, padding with 0 (Radford et al. 2021, section 2.4)."""

from . import tokenizers
from .bpe import END_OF_WORD
from .tokenizer import Tokenizer
from .words import clip_words


@tokenizers.register("clip")
class ClipTokenizer(Tokenizer):
    """512 byte symbols, the merges, start and end; 49,408 entries as published. A caption can contain the specials."""

    kind = "clip"
    suffix = END_OF_WORD
    specials = ("<|startoftext|>", "<|endoftext|>")
    split = staticmethod(clip_words)
    published_sha256 = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"

    @property
    def start(self) -> tuple[int, ...]:
        return (self.vocab_size - 2,)

    @property
    def end(self) -> tuple[int, ...]:
        return (self.vocab_size - 1,)
