"""MaLP: a short-term and a long-term memory, from which a query gets a few sentences.

How the two memories come about is `models/promotion.py`. A query gets the exchange of the
short-term memory whose own query is most like it, then the sentences of the long-term memory that
are nearest to it in meaning.

Where this differs from the paper and its code, which leave much open:
- Promotion is done here (their `transit` is empty): by matches, or when an exchange is forgotten.
- What says something about the user is told by form, not by asking a chat model; common-sense
  knowledge is not kept.
- The short-term memory compares words, not characters, and by a share, not by fewer than 6 edits,
  which finds near duplicates alone.
- The long-term keys are an encoder's vectors as they are, not those of a fine-tuned one, so the
  least cosine is an option instead of 0.9.
- The shared LoRA that MaLP trains on other users' dialogues is what `models/population.py` learns
  and merges into the base, for every method alike.
- Both memories stand still while requests are served: a state is published text.

Reference: Zhang et al., LLM-based Medical Assistant Personalization with Short- and Long-Term
Memory Coordination, arXiv 2309.11696.
"""

from __future__ import annotations

import json
from functools import partial
from typing import NamedTuple

from torch import Tensor

from models.base import Base
from models.encoder import BASE, Encoder
from models.excerpts import Excerpts, one_line
from models.fitting import ReadFitting
from models.kept import Kept
from models.options import Space, require
from models.personalizer import Framed, Task, UserState
from models.promotion import Exchange, Fact, lived, long_term, looked_up, matched
from models.retrieval import Dense, Encoders
from models.text import BUDGETS, VECTORS, Wordy, options_of
from models.words import words

SPACE: Space = {"short_term": (8, 4, 16), "threshold": (0.7, 0.5, 0.9), "budget": BUDGETS}


class Memories(NamedTuple):
    """Both memories of a state, ready for use."""

    profile: str
    recent: tuple[Exchange, ...]
    facts: tuple[Fact, ...]
    finder: Dense | None


class Malp(Wordy):
    """Personalizer: what two memories hold on a query stands before it.

    Args:
        encoder: whose vectors the long-term memory compares; a state says which.
    """

    name = "malp"
    space = SPACE

    def __init__(self, encoder: str = BASE) -> None:
        self._encoder, self._encoders = encoder, Encoders()
        self._memories: Kept[Memories] = Kept(self._loaded)

    def start(self, base: Base) -> ReadFitting:
        """An empty fitting on a base."""
        return ReadFitting(partial(self.read, base))

    def read(self, base: Base, task: Task) -> UserState:
        """Both memories after the training part, every query of which was a look-up."""
        options = require(task.configuration)
        past = lived(task.train, task.user_said, options.whole("short_term"))
        encoder = self._encoders.of(base, self._encoder)
        queries = [item.query for item in task.train]
        facts, vectors_nE = long_term(past, queries, encoder, options.number("threshold"))
        text = _text(one_line(task.profile or ""), past.recent, facts)
        tensors: dict[str, Tensor] = {}
        if facts:
            tensors, text["encoder"] = {VECTORS: vectors_nE}, encoder.name
        return UserState(self.name, task.user_id, options.to_json(), tensors, text)

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query behind what the memories hold on it."""
        if state is None or state.is_base:
            return Framed(query)
        options, memories = options_of(state), self._memories.of(base, state)
        found = _found(memories, query, options.number("threshold"))
        in_time = sorted(found)
        order = [in_time.index(place) for place in found]
        excerpts = Excerpts(base, options.whole("budget"))
        lines = [found[place] for place in in_time]
        return Framed(excerpts.framed(query, memories.profile, lines, order))

    def _loaded(self, base: Base, state: UserState) -> Memories:
        recent = [
            Exchange(number, line, tuple(words(asked)), ())
            for number, line, asked in json.loads(state.text.get("recent", "[]"))
        ]
        facts = [
            Fact(text, number, count)
            for number, text, count in json.loads(state.text.get("facts", "[]"))
        ]
        finder = None
        if VECTORS in state.tensors:
            encoder: Encoder = self._encoders.of(base, state.text.get("encoder", BASE))
            finder = Dense(state.tensors[VECTORS], encoder)
        return Memories(state.text.get("profile", ""), tuple(recent), tuple(facts), finder)


def _found(memories: Memories, query: str, threshold: float) -> dict[tuple[int, int], str]:
    """What the memories hold on a query, best first, by when it was said: (number, place)."""
    if not query.strip():
        return {}
    exchange = matched(memories.recent, query)
    found = {} if exchange is None else {(exchange.number, 0): exchange.line}
    if memories.finder is not None:
        cosines_n = memories.finder.cosines(query)
        for place in looked_up(cosines_n, memories.facts, threshold):
            fact = memories.facts[place]
            if exchange is None or fact.number != exchange.number:
                found[fact.number, place] = fact.text
    return found


def _text(profile: str, recent: tuple[Exchange, ...], facts: list[Fact]) -> dict[str, str]:
    held: dict[str, list[list[object]]] = {
        "recent": [[e.number, e.line, " ".join(e.key)] for e in recent],
        "facts": [[fact.number, fact.text, fact.count] for fact in facts],
    }
    text = {name: json.dumps(values, ensure_ascii=False) for name, values in held.items() if values}
    return {**text, "profile": profile} if profile else text
