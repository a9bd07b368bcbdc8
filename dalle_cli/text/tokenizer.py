"""The base class of tokenizers: words to ids, padded rows for a model, and a serializable state."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..files import write_atomically
from . import TextError
from .bpe import BytePairs, Random
from .vocabulary import read_merges


class Tokenizer:
    """Byte-pair encoding; each subclass is one convention of words, special tokens and padding.

    path: `published` (found on this machine), `starter` (shipped), or a file or folder, see vocabulary.py.
    merges: the merges of a saved state, in place of a path.
    Raises TextError if the vocabulary is missing, malformed, or of another kind.
    """

    kind: ClassVar[str]  # the registered name
    suffix: ClassVar[str]  # mark of a word's end; may be empty
    specials: ClassVar[tuple[str, ...]] = ()
    published_sha256: ClassVar[str] = ""  # of the published merges, one per line

    start: tuple[int, ...] = ()  # ids before the text of a row
    end: tuple[int, ...] = ()  # ids after it, kept when the text is truncated
    pad: int = 0

    def __init__(self, path: str | None = None, merges: list[str] | None = None):
        if (path is None) == (merges is None):
            raise TextError("tokenizer.path: name a vocabulary file, or 'published' or 'starter'")
        lines = read_merges(path, self.kind, self.suffix) if path is not None else merges
        if not isinstance(lines, list):
            raise TextError("the merges of a vocabulary must be a list of lines; the file is damaged")
        try:
            self.pairs = BytePairs(lines, self.suffix, self.specials)
        except TextError as error:
            raise TextError(f"{path}: {error}" if path else str(error)) from None
        self.merges = lines
        self.vocab_size = len(self.pairs.tokens)
        self.truncated = 0  # texts that `pack` has truncated so far

    @property
    def published(self) -> bool:
        """Whether the merges are exactly those that published weights were trained with."""
        return hashlib.sha256("\n".join(self.merges).encode()).hexdigest() == self.published_sha256

    @staticmethod
    def split(text: str) -> list[str]:
        """Return the words of a text, cleaned and split by this convention; any string is accepted."""
        raise NotImplementedError

    def encode(self, text: str, dropout: float = 0.0, random: Random | None = None) -> list[int]:
        """Return the ids of a text, without start, end and padding.

        dropout: probability of skipping a merge, using `random`, so that a model sees a word in several spellings
        (Provilkov et al. 2020; DALL-E trains with 0.1).
        """
        return self.pairs.encode(self.split(text), dropout, random)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, in the lower case and spacing of the vocabulary. Raises TextError for unknown ids."""
        return self.pairs.decode(ids).strip()

    def pack(
        self,
        texts: Sequence[str],
        context: int,
        truncate: bool = True,
        dropout: float = 0.0,
        random: Random | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows for a model: ids, int64 (B, context), right-padded; mask, bool (B, context), false at padding.

        A text that is too long is truncated before the end token and counted in `truncated`; if `truncate` is false, it
        raises TextError.
        """
        assert not isinstance(texts, str), "texts is a list"
        max_length = context - len(self.start) - len(self.end)
        if max_length < 0:
            raise TextError(f"a context length of {context} is less than the start and end tokens; increase it")
        ids = np.full((len(texts), context), self.pad, dtype=np.int64)
        mask = np.zeros((len(texts), context), dtype=bool)
        for row, text in enumerate(texts):
            body = self.encode(text, dropout, random)
            if len(body) > max_length:
                if not truncate:
                    shown = text if len(text) <= 40 else text[:37] + "..."
                    raise TextError(
                        f"{shown!r} is {len(body)} tokens long, more than {max_length}; shorten it or allow truncation"
                    )
                self.truncated += 1
                body = body[:max_length]
            line = [*self.start, *body, *self.end]
            ids[row, : len(line)] = line
            mask[row, : len(line)] = True
        return ids, mask

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, serializable as JSON: the type and the merges."""
        return {"type": self.kind, "merges": self.merges}

    def save(self, path: str | Path) -> None:
        """Write the state as JSON, one merge per line, atomically."""
        text = json.dumps(self.state(), ensure_ascii=False, indent=0) + "\n"
        write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))
