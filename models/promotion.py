"""Two memories of a user's past, as MaLP keeps them: a short one of exchanges, a long one of facts.

The past is lived through in time order, and every query of it is a look-up. The short-term memory
holds the last m exchanges. One that was matched `MATCHES` times is promoted: its sentences enter
the long-term memory; so do, when it is forgotten, those of its sentences that say something about
the user. The long-term memory counts how often each sentence was looked up, and when it is full it
forgets what was looked up least, of equals the oldest.

What says something about the user is told by form, since no chat model is asked: the first person
(English), a number, or a capital letter inside a sentence. A sentence in a script without capitals
always counts.

Notation: n sentences, q queries, E width of a vector.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.encoder import Encoder
from models.excerpts import line_of, one_line
from models.history import Interaction, UserSaid, user_texts
from models.retrieval import edit_similarity
from models.words import words

MATCHES = 2  # of an exchange, before it is promoted
ALIKE = 0.5  # edit similarity of a query and an exchange's own, at which they match
FEWEST_WORDS = 3  # of a sentence that is kept
LARGEST = 512  # sentences of a long-term memory
CAP = 4  # sentences that a look-up finds at most

_ENDS = re.compile(r"(?<=[.!?…])\s+|(?<=[\u3002\uff01\uff1f])|[\r\n]+")
_FIRST_PERSON = frozenset(("i", "me", "my", "mine", "myself", "we", "us", "our", "ours"))


@dataclass(eq=False)
class Exchange:
    """One exchange in the short-term memory: `number` is its place in the past."""

    number: int
    line: str
    key: tuple[str, ...]
    sentences: tuple[str, ...]
    matches: int = 0

    @classmethod
    def of(cls, number: int, item: Interaction, user_said: UserSaid) -> Exchange:
        """An interaction as an exchange; its key are the words of its query, or of its post."""
        found = [s for text in user_texts([item], user_said) for s in sentences(text)]
        key = tuple(words(item.query if item.query is not None else item.response))
        return cls(number, line_of(item), key, tuple(found))


@dataclass
class Fact:
    """One sentence in the long-term memory, when it was said, and how often it was looked up."""

    text: str
    number: int
    count: int = 0


@dataclass(frozen=True)
class Lived:
    """What is left of a past: recent exchanges, and what entered the long-term memory at each step.

    `promoted[i]` entered before interaction i was looked up; the last entry came after all of them.
    """

    recent: tuple[Exchange, ...]
    promoted: tuple[tuple[Fact, ...], ...]


def sentences(text: str) -> list[str]:
    """The sentences of a text, each on one line, the shortest left out."""
    found = [one_line(part) for part in _ENDS.split(text) if part]
    return [sentence for sentence in found if len(words(sentence)) >= FEWEST_WORDS]


def is_specific(sentence: str) -> bool:
    """Whether a sentence has the form of one that says something about its speaker."""
    if not any(character.isupper() or character.islower() for character in sentence):
        return True
    inside = sentence.split()[1:]
    first_letters = (next(filter(str.isalpha, word), "") for word in inside)
    return (
        not _FIRST_PERSON.isdisjoint(words(sentence))
        or any(character.isdigit() for character in sentence)
        or any(letter.isupper() for letter in first_letters)
    )


def matched(recent: Sequence[Exchange], query: str) -> Exchange | None:
    """The exchange whose query is most like this one, of equals the newest; None below `ALIKE`."""
    asked, best, found = words(query), 0.0, None
    for exchange in recent:
        similarity = edit_similarity(asked, exchange.key, ALIKE)
        if similarity and similarity >= best:
            best, found = similarity, exchange
    return found


def lived(items: Sequence[Interaction], user_said: UserSaid, short_term: int) -> Lived:
    """A past, lived through with a short-term memory of so many exchanges."""
    recent: deque[Exchange] = deque()
    promoted: list[tuple[Fact, ...]] = []
    entering: list[Fact] = []
    for number, item in enumerate(items):
        promoted.append(tuple(entering))
        entering = []
        hit = matched(recent, item.query) if item.query is not None else None
        if hit is not None:
            hit.matches += 1
            if hit.matches == MATCHES:
                entering += [Fact(sentence, hit.number) for sentence in hit.sentences]
        recent.append(Exchange.of(number, item, user_said))
        if len(recent) > short_term:
            gone = recent.popleft()
            if gone.matches < MATCHES:
                entering += [Fact(s, gone.number) for s in gone.sentences if is_specific(s)]
    return Lived(tuple(recent), (*promoted, tuple(entering)))


def long_term(
    past: Lived, queries: Sequence[str | None], encoder: Encoder, threshold: float
) -> tuple[list[Fact], Tensor]:
    """The facts of a past, every query of it looked up, and their vectors `[n, E]`.

    Args:
        queries: of each interaction; None for a post.
        threshold: cosine that a sentence must reach to be found.
    """
    texts = list(dict.fromkeys(fact.text for facts in past.promoted for fact in facts))
    asked = [number for number, query in enumerate(queries) if query is not None]
    vectors_nE = encoder.encode(texts).cpu() if texts else torch.zeros(0, encoder.width)
    if texts and asked:
        queries_qE = encoder.encode([query for query in queries if query is not None]).cpu()
        cosines = dict(zip(asked, (queries_qE @ vectors_nE.T).numpy(), strict=True))
    else:
        cosines = {}
    places = {text: place for place, text in enumerate(texts)}
    facts: dict[str, Fact] = {}
    for number, entering in enumerate(past.promoted):
        _enter(facts, entering)
        if number in cosines and facts:
            known = list(facts.values())
            here = cosines[number][[places[fact.text] for fact in known]]
            for found in looked_up(here, known, threshold):
                known[found].count += 1
    kept = sorted(facts.values(), key=lambda fact: fact.number)
    return kept, vectors_nE[[places[fact.text] for fact in kept]]


def looked_up(cosines_n: NDArray[np.float32], facts: Sequence[Fact], threshold: float) -> list[int]:
    """Places of the facts a query finds: at most `CAP`, the likest first, then the most used."""
    near = [place for place, cosine in enumerate(cosines_n.tolist()) if cosine >= threshold]
    near.sort(key=lambda place: (-cosines_n[place], -facts[place].count, -facts[place].number))
    return near[:CAP]


def _enter(facts: dict[str, Fact], entering: Sequence[Fact]) -> None:
    """Take facts in; one said again keeps its count and is as new as now. The least used go."""
    for fact in entering:
        known = facts.pop(fact.text, None)
        if len(facts) >= LARGEST:
            del facts[min(facts.values(), key=lambda other: (other.count, other.number)).text]
        facts[fact.text] = Fact(fact.text, fact.number, known.count if known else 0)
