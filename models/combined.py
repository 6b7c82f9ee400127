"""Two methods at once: retrieved words in the prompt, and whatever another method attaches.

MiLP+RAG and PPlug+RAG are made alike. A state holds both parts; a query gets the words first, then
what the inner method frames it with. What the inner method trains on is framed in the same way, so
that it learns to answer with excerpts before it: a training pair with excerpts of earlier items
alone (never itself, never a later one), a validation item with those of the whole training part,
which is what a later query meets. Memory injection reads the user's bare words, as ever.

Framed pairs are longer, so that fewer of them fit into `Budget.epoch_tokens`: what a method reads
counts, whoever wrote it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from models.base import Base
from models.encoder import BASE
from models.history import Interaction
from models.kept import Kept
from models.milp import Milp
from models.options import Options, Space, default
from models.parts import Parts
from models.personalizer import (
    Configuration,
    Finished,
    Fitting,
    Framed,
    Person,
    Personalizer,
    Shared,
    Task,
    UserState,
)
from models.pplug import Pplug
from models.text import Rag
from models.training import Checkpoint
from search.space import MemoryConfig

T = TypeVar("T")
PREFIX = "words."  # of the names in a state that are the excerpts'

Inner = Callable[[Base, Options], Configuration]
"""The inner method's configuration of its options."""


class Halves(NamedTuple):
    """A combined state's two, each as its method made it."""

    inner: UserState
    words: UserState


class WithRetrieval:
    """Personalizer: an inner method, and excerpts of the user's past before every query.

    Args:
        inner: what is trained.
        space: the inner method's own options.
        configuration: what they mean to it. Any configuration that isn't made of options is taken
            as the inner method's, with the words' options at their defaults.
        words: what retrieves.
    """

    def __init__(
        self,
        inner: Personalizer,
        space: Space | None = None,
        configuration: Inner = lambda _base, options: options,
        words: Rag | None = None,
    ) -> None:
        self._inner, self._words = inner, words or Rag()
        self._inner_space = inner.space if space is None else space
        self._configuration = configuration
        self._words_space = {k: self._words.space[k] for k in ("k", "budget")}
        if both := self._inner_space.keys() & self._words.space.keys():
            raise ValueError(f"expected options of other names than the words', got {sorted(both)}")
        self.name = f"{inner.name}+{self._words.name}"
        self.space: Space = {**self._inner_space, **self._words_space}
        self._halves = Kept(self._parted)

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared | None:
        """What the inner method shares, learned on pairs behind excerpts of what came before them.

        Raises:
            ValueError: too few people for the inner method.
        """
        inner, words = self._split(base, configuration)
        framed = [self._person(base, person, words) for person in people]
        return self._inner.learn(base, framed, inner, seed)

    def start(self, base: Base) -> CombinedFitting:
        """An empty fitting on a base."""
        return CombinedFitting(self, base, self._inner.start(base))

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query behind its excerpts, then as the inner method frames it."""
        if state is None or state.is_base:
            return Framed(query)
        halves = self._halves.of(base, state)
        framed = self._words.frame(base, halves.words, query)
        if halves.inner.is_base:
            return framed
        return self._inner.frame(base, halves.inner, framed.query)

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> Sequence[Parts]:
        """What row i runs under is the inner method's."""
        inner = [self._halves.of(base, state).inner for state in states]
        rows = [row for row, state in enumerate(inner) if not state.is_base]
        asked = None if prompts is None else [prompts[row] for row in rows]
        found = [Parts()] * len(states)
        of_inner = self._inner.parts(base, [inner[row] for row in rows], asked) if rows else []
        for row, part in zip(rows, of_inner, strict=True):
            found[row] = part
        return found

    def tasks(self, base: Base, task: Task) -> tuple[Task, UserState]:
        """The inner method's task, its pairs and validation framed, and the words' state."""
        inner, options = self._split(base, task.configuration)
        words = self._words.read(base, replace(task, configuration=options)).state
        framed = replace(
            task,
            configuration=inner,
            validation=tuple(self._asked(base, words, item) for item in task.validation),
            pairs=self._pairs(base, words, task),
        )
        return framed, words

    def joined(self, task: Task, inner: UserState, words: UserState) -> UserState:
        """Both halves in one state."""
        return UserState(
            self.name,
            task.user_id,
            {**inner.configuration, **words.configuration, **task.configuration.to_json()},
            {**inner.tensors, **_prefixed(words.tensors)},
            {**inner.text, **_prefixed(words.text)},
            inner.shared,
        )

    def _split(self, base: Base, configuration: Configuration) -> tuple[Configuration, Options]:
        """The inner method's configuration, and the words' options."""
        words = dict(default(self._words.space).values)
        if not isinstance(configuration, Options):
            return configuration, Options(tuple(words.items()))
        given = dict(configuration.values)
        inner = {name: value for name, value in given.items() if name not in words}
        words |= {name: value for name, value in given.items() if name in words}
        return self._configuration(base, Options.of(**inner)), Options.of(**words)

    def _parted(self, _base: Base, state: UserState) -> Halves:
        names = self._words.space
        configuration = dict(state.configuration)
        options = {name: configuration.pop(name) for name in names if name in configuration}
        tensors, text = _parted(state.tensors), _parted(state.text)
        user, shared = state.user_id, state.shared
        return Halves(
            UserState(self._inner.name, user, configuration, tensors[0], text[0], shared),
            UserState(self._words.name, user, options, tensors[1], text[1]),
        )

    def _asked(
        self, base: Base, words: UserState, item: Interaction, before: int | None = None
    ) -> Interaction:
        """An item as it is asked, behind excerpts of what came before."""
        if item.query is None:
            return item
        framed = self._words.frame_before(base, words, item.query, before)
        return replace(item, query=framed.query)

    def _pairs(self, base: Base, words: UserState, task: Task) -> tuple[Interaction, ...]:
        """The training pairs as they are asked, in order.

        Those older than what an epoch reads stay bare: they are cut anyway.
        """
        room = task.budget.epoch_tokens or sys.maxsize
        found: list[Interaction] = []
        for number in reversed(range(len(task.train))):
            item = task.train[number]
            if item.query is not None and room >= 0:
                item = self._asked(base, words, item, number)
                room -= len(base.prompt.pair(item.query or "", item.response).tokens)
            found.append(item)
        return tuple(reversed(found))

    def _person(self, base: Base, person: Person, options: Options) -> Person:
        """A person whose pairs are framed with what that person said before them."""
        past = (*person.history, *person.pairs)
        words = self._words.read(base, Task("", person.user_id, past, (), options, 0)).state
        first = len(person.history)
        pairs = (
            self._asked(base, words, pair, number)
            for number, pair in enumerate(person.pairs, first)
        )
        return replace(person, pairs=tuple(pairs))


class CombinedFitting:
    """The inner method's fitting, whose tasks are framed and whose states get their words."""

    def __init__(self, method: WithRetrieval, base: Base, inner: Fitting) -> None:
        self._method, self._base, self._inner = method, base, inner
        self._tasks: dict[str, tuple[Task, UserState]] = {}

    @property
    def running(self) -> int:
        """Number of tasks that have not been reported as finished."""
        return self._inner.running

    def add(self, task: Task) -> None:
        """Take a task in from the next step on.

        Raises:
            ValueError: nothing to learn or to validate on.
        """
        framed, words = self._method.tasks(self._base, task)
        self._inner.add(framed)
        self._tasks[task.key] = (task, words)

    def step(self) -> tuple[list[Checkpoint], list[Finished]]:
        """One step of the inner fitting."""
        reports, finished = self._inner.step()
        return reports, [self._finished(done) for done in finished]

    def stop(self, key: str) -> None:
        """Drop a task: it is neither reported nor finished."""
        self._inner.stop(key)
        self._tasks.pop(key, None)

    def _finished(self, done: Finished) -> Finished:
        task, words = self._tasks.pop(done.key)
        if done.state is None:
            return done
        return replace(done, state=self._method.joined(task, done.state, words))


def milp_with_retrieval() -> WithRetrieval:
    """MiLP+RAG: one LoRA on every feed-forward layer; its rank and rate are options."""
    space: Space = {"rank": (16, 8, 32), "learning_rate": (1e-3, 3e-4, 3e-3)}
    return WithRetrieval(Milp(), space, _on_every_layer)


def pplug_with_retrieval(encoder: str = BASE) -> WithRetrieval:
    """PPlug+RAG: two soft tokens of the history, and excerpts of it."""
    return WithRetrieval(Pplug(encoder))


def _on_every_layer(base: Base, options: Options) -> MemoryConfig:
    layers = tuple(range(base.layer_count))
    return MemoryConfig(layers, options.whole("rank"), options.number("learning_rate"))


def _prefixed(values: Mapping[str, T]) -> dict[str, T]:
    return {PREFIX + name: value for name, value in values.items()}


def _parted(values: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
    """The inner method's values, and the words'."""
    inner = {name: value for name, value in values.items() if not name.startswith(PREFIX)}
    words = {name: value for name, value in values.items() if name.startswith(PREFIX)}
    return inner, {name.removeprefix(PREFIX): value for name, value in words.items()}
