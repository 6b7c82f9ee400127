"""Which of a user's texts belong to a query: by words (BM25), by meaning (cosine), or the newest.

A retriever ranks the numbers of texts, best first; of equals the newer one stands first, so that
the order never depends on a hash or a library's sorting. Decided on purpose: a query of blanks
finds nothing; BM25 finds only texts that share a word with the query, so perhaps none; a cosine
ranks every text.

Words are those of `models/words.py`, so that every script counts. BM25 is Lucene's form (k1 1.5,
b 0.75), computed by the library bm25s; a word counts once however often the query repeats it.

Notation: n texts, E width of a vector.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from models.base import Base
from models.encoder import Encoder, encoder_of
from models.words import words

LONGEST_COMPARED = 64  # words of a text that `edit_similarity` reads


class Retriever(Protocol):
    """What finds a user's texts for a query."""

    def rank(self, query: str, before: int | None = None) -> list[int]:
        """Numbers of texts, best first; of those before number `before` alone, where it is given"""


class Newest:
    """The newest texts, whatever the query."""

    def __init__(self, count: int) -> None:
        self._count = count

    def rank(self, query: str, before: int | None = None) -> list[int]:
        """All numbers, the largest first."""
        return list(reversed(range(self._count if before is None else before)))


class Lexical:
    """Texts that share words with the query, by BM25."""

    def __init__(self, texts: Sequence[str]) -> None:
        from bm25s import BM25  # where JAX is installed it takes seconds: for who retrieves alone

        words_of = [words(text) for text in texts]
        # In order, since the library's own vocabulary is a set, whose order differs between runs.
        self._vocabulary = {w: i for i, w in enumerate(sorted({w for ws in words_of for w in ws}))}
        self._index = BM25()
        if self._vocabulary:
            ids_of = [[self._vocabulary[word] for word in found] for found in words_of]
            self._index.index((ids_of, self._vocabulary), False, show_progress=False)

    def rank(self, query: str, before: int | None = None) -> list[int]:
        """Texts with a word of the query, by their score."""
        asked = dict.fromkeys(words(query))
        ids = [self._vocabulary[word] for word in asked if word in self._vocabulary]
        if not ids:
            return []
        scores = self._index.get_scores_from_ids(ids)[:before]
        return [number for number in _ordered(scores) if scores[number] > 0]


class Dense:
    """All texts, by the cosine of their vectors and the query's."""

    def __init__(self, vectors_nE: Tensor, encoder: Encoder) -> None:
        """Texts by their vectors, and the encoder of queries.

        Raises:
            ValueError: these vectors are not that encoder's.
        """
        if vectors_nE.shape[1] != encoder.width:
            raise ValueError(
                f"expected vectors of the encoder {encoder.name!r}, of width {encoder.width}, got "
                f"some of width {vectors_nE.shape[1]}; put the encoder back as it was"
            )
        self._vectors_nE, self._encoder = vectors_nE.float().cpu(), encoder

    def rank(self, query: str, before: int | None = None) -> list[int]:
        """All numbers, by cosine."""
        return _ordered(self.cosines(query)[:before]) if query.strip() else []

    def cosines(self, query: str) -> NDArray[np.float32]:
        """`[n]`: the cosine of each text and the query."""
        vector_E = self._encoder.encode([query])[0].cpu()
        found: NDArray[np.float32] = (self._vectors_nE @ vector_E).numpy()
        return found


class Encoders:
    """Encoders by name, each loaded once and run by one thread at a time."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[int, str], tuple[nn.Module, Encoder]] = {}
        self._lock = threading.Lock()

    def of(self, base: Base, name: str) -> Encoder:
        """The encoder of a name, for a base.

        Raises:
            ValueError: no such encoder.
        """
        key = (id(base.model), name)
        with self._lock:
            if key not in self._loaded:
                # The model is kept beside it, so that its id stays its own.
                self._loaded[key] = (base.model, _OneAtATime(encoder_of(name, base)))
            return self._loaded[key][1]


class _OneAtATime:
    """An encoder whose tokenizer is never used by two threads at once."""

    def __init__(self, encoder: Encoder) -> None:
        self.name, self.width = encoder.name, encoder.width
        self._encoder, self._lock = encoder, threading.Lock()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """`[n, E]` of texts."""
        with self._lock:
            return self._encoder.encode(texts)


def edit_similarity(left: Sequence[str], right: Sequence[str], least: float = 0.0) -> float:
    """1 minus the edit distance of two lists of words over the longer one's length, in [0, 1].

    The first `LONGEST_COMPARED` words of each are read. What can't reach `least` is 0.
    """
    left, right = left[:LONGEST_COMPARED], right[:LONGEST_COMPARED]
    longest = max(len(left), len(right))
    shared = (Counter(left) & Counter(right)).total()
    if not shared or shared < least * longest:
        return 0.0
    row = list(range(len(right) + 1))
    for i, word in enumerate(left, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(right, 1):
            kept = corner + (word != other)
            corner, row[j] = row[j], min(kept, row[j] + 1, row[j - 1] + 1)
    similarity = 1 - row[-1] / longest
    return similarity if similarity >= least else 0.0


def _ordered(scores: NDArray[np.float32]) -> list[int]:
    """Numbers by falling score, of equals the larger first."""
    numbers = np.arange(len(scores))
    found: list[int] = np.lexsort((-numbers, -scores)).tolist()
    return found
