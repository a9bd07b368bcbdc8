"""What all tokenizers share: words to ids, rows for a model, and a state that rebuilds them."""

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
    """Byte-pair encoding with one convention of words, special tokens and padding; a subclass a convention.

    path: `published` (found on this machine), `starter` (shipped), or a file or folder, see vocabulary.py.
    merges: the lines of a state instead.
    Raises TextError when the vocabulary is missing, malformed, or of another kind.
    """

    kind: ClassVar[str]  # the name it is registered under
    suffix: ClassVar[str]  # what marks a word's end, if anything does
    specials: ClassVar[tuple[str, ...]] = ()
    published_sha256: ClassVar[str] = ""  # of the published merges, one a line

    start: tuple[int, ...] = ()  # ids before the text of a row
    end: tuple[int, ...] = ()  # ids after it, kept when it is cut
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
        self.truncated = 0  # texts that `pack` has cut so far

    @property
    def published(self) -> bool:
        """Whether these are, merge for merge, the vocabulary that published weights were trained with."""
        return hashlib.sha256("\n".join(self.merges).encode()).hexdigest() == self.published_sha256

    @staticmethod
    def split(text: str) -> list[str]:
        """Words of a text, as this convention cleans and cuts it; any string is accepted."""
        raise NotImplementedError

    def encode(self, text: str, dropout: float = 0.0, random: Random | None = None) -> list[int]:
        """Ids of the text alone, without start, end and padding.

        dropout: probability of passing over a merge, drawn from `random`, so that a model sees a word in several
        spellings (Provilkov et al. 2020; DALL-E trains with 0.1).
        """
        return self.pairs.encode(self.split(text), dropout, random)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, in the lower case and spacing of the vocabulary. Raises TextError for ids outside of it."""
        return self.pairs.decode(ids).strip()

    def pack(
        self,
        texts: Sequence[str],
        context: int,
        truncate: bool = True,
        dropout: float = 0.0,
        random: Random | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows for a model: ids, int64 (B, context), padded on the right; mask, bool (B, context), true where real.

        A text too long is cut so that the end token stays, and counted in `truncated`; without `truncate`, TextError.
        """
        assert not isinstance(texts, str), "texts is a list"
        room = context - len(self.start) - len(self.end)
        if room < 0:
            raise TextError(f"a context of {context} has no room for the start and end tokens; make it longer")
        ids = np.full((len(texts), context), self.pad, dtype=np.int64)
        mask = np.zeros((len(texts), context), dtype=bool)
        for row, text in enumerate(texts):
            body = self.encode(text, dropout, random)
            if len(body) > room:
                if not truncate:
                    shown = text if len(text) <= 40 else text[:37] + "..."
                    raise TextError(
                        f"{shown!r} is {len(body)} tokens long, more than {room}; shorten it or let it be cut"
                    )
                self.truncated += 1
                body = body[:room]
            line = [*self.start, *body, *self.end]
            ids[row, : len(line)] = line
            mask[row, : len(line)] = True
        return ids, mask

    def state(self) -> dict[str, Any]:
        """All that `from_state` needs, as JSON can hold it: the type and the merges."""
        return {"type": self.kind, "merges": self.merges}

    def save(self, path: str | Path) -> None:
        """Write the state as JSON, one merge a line; the file is whole or not there."""
        text = json.dumps(self.state(), ensure_ascii=False, indent=0) + "\n"
        write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))
