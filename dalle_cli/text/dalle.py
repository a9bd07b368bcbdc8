"""DALL-E 1's tokenizer: only the text; the transformer has its own pad token for every position (section 2.2)."""

from . import tokenizers
from .bpe import END_OF_WORD
from .tokenizer import Tokenizer
from .words import clip_words


@tokenizers.register("dalle")
class DalleTokenizer(Tokenizer):
    """512 byte symbols and the merges, learned from the captions; 16,384 entries in the paper, never published."""

    kind = "dalle"
    suffix = END_OF_WORD
    split = staticmethod(clip_words)
