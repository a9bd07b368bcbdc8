"""Tokenizers: byte-pair encoding with the special tokens and padding of CLIP, GLIDE and DALL-E 1. No torch here."""

from ..registry import Registry

tokenizers = Registry("tokenizer", __name__)


class TextError(ValueError):
    """A vocabulary, or a text, that cannot be used; the message names it and the remedy in one line."""
