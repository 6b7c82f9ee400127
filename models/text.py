"""Methods of words: a user's past in the prompt, the newest of it (TpLP) or what fits the query.

Neither trains anything. Both frame a query in the same way and within the same budget
(`models/excerpts.py`), so that what is selected is the only difference between them. A state is the
user's training text as lines, with their vectors where they are found by meaning.

References: TpLP is the text prompt that MiLP is compared with (arXiv 2404.03565); RAG is LaMP's,
arXiv 2304.11406, without its templates for single tasks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, cast

from models.base import Base
from models.encoder import BASE
from models.excerpts import Excerpts, distinct, line_of, one_line
from models.fitting import Read, ReadFitting
from models.kept import Kept
from models.options import Options, Space, Value, require
from models.parts import Parts
from models.personalizer import Configuration, Framed, Person, Task, UserState
from models.retrieval import Dense, Encoders, Lexical, Newest, Retriever

VECTORS = "vectors"  # `[n, E]`, of a state's lines
BUDGETS = (128, 64, 256, 512)
NEWEST_SPACE: Space = {"budget": BUDGETS}
RETRIEVAL_SPACE: Space = {"k": (4, 1, 2, 8), "budget": BUDGETS, "retriever": ("bm25", "dense")}


class Wordy:
    """What methods without weights have in common: nothing is shared, and nothing is attached."""

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> None:
        """Nothing is shared."""

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        """Every row runs under the base: what a state holds stands in the prompt."""
        return [Parts()] * len(states)


class Past(NamedTuple):
    """A state's text, ready for use."""

    profile: str
    lines: tuple[str, ...]
    retriever: Retriever


class Tplp(Wordy):
    """Personalizer: the newest of a user's past stands before the query."""

    name = "tplp"
    space = NEWEST_SPACE

    def __init__(self) -> None:
        self._pasts: Kept[Past] = Kept(
            lambda _base, state: past_of(state, lambda lines: Newest(len(lines)))
        )

    def start(self, base: Base) -> ReadFitting:
        """An empty fitting on a base."""
        return ReadFitting(partial(self.read, base))

    def read(self, base: Base, task: Task) -> Read:
        """Keeps what any query can be framed with; the rest is older, left out and counted."""
        options = require(task.configuration)
        profile, lines = one_line(task.profile or ""), [line_of(item) for item in task.train]
        excerpts = Excerpts(base, options.whole("budget"))
        chosen = excerpts.selected("", profile, lines, Newest(len(lines)).rank(""))
        kept = [chosen.lines[number] for number in sorted(chosen.lines)]
        counts = {
            "items_left_out": len(lines) - len(kept),
            "tokens_left_out": sum(map(excerpts.tokens, lines)) - sum(map(excerpts.tokens, kept)),
        }
        text = text_of(chosen.profile, kept)
        return Read(UserState(self.name, task.user_id, options.to_json(), {}, text), counts)

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query behind the newest excerpts."""
        if state is None or state.is_base:
            return Framed(query)
        past = self._pasts.of(base, state)
        excerpts = Excerpts(base, options_of(state).whole("budget"))
        order = past.retriever.rank(query)
        return Framed(excerpts.framed(query, past.profile, past.lines, order))


class Rag(Wordy):
    """Personalizer: the k items of a user's past that fit the query best stand before it.

    Args:
        encoder: whose vectors are compared, where items are found by meaning; a state says which.
    """

    name = "rag"
    space = RETRIEVAL_SPACE

    def __init__(self, encoder: str = BASE) -> None:
        self._encoder, self._encoders = encoder, Encoders()
        self._pasts: Kept[Past] = Kept(self._past)

    def start(self, base: Base) -> ReadFitting:
        """An empty fitting on a base."""
        return ReadFitting(partial(self.read, base))

    def read(self, base: Base, task: Task) -> Read:
        """Keeps the whole training part: any of it may fit a query."""
        options = require(task.configuration)
        lines = [line_of(item) for item in task.train]
        text, tensors = text_of(one_line(task.profile or ""), lines), {}
        if lines and options.one_of("retriever", ("bm25", "dense")) == "dense":
            encoder = self._encoders.of(base, self._encoder)
            tensors[VECTORS], text["encoder"] = encoder.encode(lines).cpu(), encoder.name
        return Read(UserState(self.name, task.user_id, options.to_json(), tensors, text), {})

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query behind the excerpts found for it."""
        return self.frame_before(base, state, query)

    def frame_before(
        self, base: Base, state: UserState | None, query: str, before: int | None = None
    ) -> Framed:
        """The query behind excerpts of the items before number `before` alone.

        So pairs of the training part are framed without what came after them. What the whole part
        says is used in one thing only: how rare each word is (BM25).
        """
        if state is None or state.is_base:
            return Framed(query)
        past = self._pasts.of(base, state)
        options = options_of(state)
        found = distinct(past.lines, past.retriever.rank(query, before))
        order = list(islice(found, options.whole("k")))
        excerpts = Excerpts(base, options.whole("budget"))
        return Framed(excerpts.framed(query, past.profile, past.lines, order))

    def _past(self, base: Base, state: UserState) -> Past:
        if VECTORS not in state.tensors:
            return past_of(state, Lexical)
        encoder = self._encoders.of(base, state.text.get("encoder", BASE))
        dense = Dense(state.tensors[VECTORS], encoder)
        return past_of(state, lambda _lines: dense)


def text_of(profile: str, lines: Sequence[str]) -> dict[str, str]:
    """A state's text; nothing where there is neither a profile nor a line."""
    text = {"items": json.dumps(list(lines), ensure_ascii=False)} if lines else {}
    return {**text, "profile": profile} if profile else text


def past_of(state: UserState, retriever: Callable[[Sequence[str]], Retriever]) -> Past:
    """A state's text with what finds its lines.

    Raises:
        ValueError: it is not what `text_of` wrote.
    """
    lines = json.loads(state.text.get("items", "[]"))
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError("expected a list of texts as a state's items, got something else")
    return Past(state.text.get("profile", ""), tuple(lines), retriever(lines))


def options_of(state: UserState) -> Options:
    """The options that a state was made with."""
    return Options(tuple(cast(Mapping[str, Value], state.configuration).items()))
