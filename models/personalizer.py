"""What every method that adapts the base to a user offers, and what flows in and out of it.

A `Task` (one user's text and one configuration) goes in, a `UserState` (tensors and text) comes
out. Scoring, registry and engine see these types only, so they know no method. What a method learns
once for all its users, from others, is a `Shared`. This file knows no file format, no Ray and no
search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from models.base import Base
from models.history import Interaction, UserSaid
from models.options import Space
from models.parts import Parts, running
from models.training import Checkpoint


class Configuration(Protocol):
    """One value for each setting of a method: a `MemoryConfig`, or `Options`."""

    def to_json(self) -> Mapping[str, object]:
        """The settings as JSON values."""


@dataclass(frozen=True)
class Person:
    """A user whom a method learns from for others: the text read, and the pairs answered after it.

    `history` ends before `pairs` begins, so that what is learned is to foresee, not to copy.
    """

    user_id: str
    history: tuple[Interaction, ...]
    pairs: tuple[Interaction, ...]


@dataclass(frozen=True, eq=False)
class Shared:
    """What a method learned once, from other users, for all states that are made with it."""

    method: str
    configuration: Mapping[str, object]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class UserState:
    """All that a personalizer keeps for a user.

    `tensors` of a LoRA carry PEFT's names without the `base_model.model.` prefix: `<module>.lora_A
    .weight` is `[R, I]`, `<module>.lora_B.weight` `[O, R]`; their product is added unscaled.
    """

    method: str
    user_id: str
    configuration: Mapping[str, object]
    tensors: Mapping[str, Tensor]
    text: Mapping[str, str] = field(default_factory=dict)
    shared: Shared | None = None

    @property
    def is_base(self) -> bool:
        """Whether this state adds nothing: the user is answered by the base."""
        return not self.tensors and not self.text and self.shared is None


class Attach(Protocol):
    """Opens a context in which row i of any batch runs under state i (None: the base)."""

    def __call__(
        self,
        states: Sequence[UserState | None],
        prompts: Sequence[Sequence[int]] | None = None,
    ) -> AbstractContextManager[None]:
        """The context.

        Args:
            states: one for each row.
            prompts: the tokens that each row answers; None while answers go on, whose prompts are
                in the cache already.
        """


class Framed(NamedTuple):
    """A query with the words that a method adds to it, and how many soft tokens stand before."""

    query: str
    soft_tokens: int = 0


Frame = Callable[[UserState | None, str], Framed]
"""`Personalizer.frame` on a base."""


@dataclass(frozen=True)
class Budget:
    """How long one task trains. Zero epochs switch a stage off.

    `minimum_steps` stretches the epochs of a short history; `epoch_tokens` cuts a long one to its
    newest tokens, of texts and of answers; `patience_epochs` ends a stage after so many epochs
    without a better validation loss; `rehearse` keeps texts that are no answers among the rows of
    tuning.
    """

    injection_epochs: int = 3
    tuning_epochs: int = 3
    minimum_steps: int = 20
    patience_epochs: int = 1
    epoch_tokens: int | None = 8192
    rehearse: bool = True


@dataclass(frozen=True)
class Task:
    """One user's training and validation parts, and the configuration to train. No test part.

    `pairs` are those of `train` as they are asked, where another method puts words before them.
    """

    key: str
    user_id: str
    train: tuple[Interaction, ...]
    validation: tuple[Interaction, ...]
    configuration: Configuration
    seed: int
    user_said: UserSaid = "response"
    budget: Budget = Budget()
    profile: str | None = None
    shared: Shared | None = None
    pairs: tuple[Interaction, ...] | None = None

    @property
    def asked(self) -> tuple[Interaction, ...]:
        """What tuning answers: the training part, as it is asked."""
        return self.train if self.pairs is None else self.pairs


@dataclass(frozen=True)
class Finished:
    """How a task ended: with a state, or with the reason why not.

    `counts` says what the data lost on its way: tokens cut from long texts, tokens beyond
    `epoch_tokens`, newlines that became spaces.
    """

    key: str
    state: UserState | None
    error: str | None = None
    loss_nats: float | None = None
    steps: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)


class Fitting(Protocol):
    """Tasks in training: they join and leave between steps."""

    @property
    def running(self) -> int:
        """Number of tasks that still train."""

    def add(self, task: Task) -> None:
        """Take a task in from the next step on."""

    def step(self) -> tuple[list[Checkpoint], list[Finished]]:
        """One optimiser step of every running task."""

    def stop(self, key: str) -> None:
        """Drop a task: it is neither reported nor finished."""


class Personalizer(Protocol):
    """A method that adapts the base to a user. It holds no user's data: states do."""

    name: str
    space: Space

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared | None:
        """What all states of a configuration share, from other users; None where nothing is.

        Raises:
            ValueError: too few people; says how many are needed.
        """

    def start(self, base: Base) -> Fitting:
        """An empty fitting on a base."""

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query, with whatever the method puts before it."""

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> Sequence[Parts]:
        """What row i runs under, for state i; the arguments are those of `Attach`."""


def fit(personalizer: Personalizer, base: Base, tasks: Sequence[Task]) -> list[Finished]:
    """All tasks trained together, in the order given. The plain loop over a fitting."""
    fitting = personalizer.start(base)
    for task in tasks:
        fitting.add(task)
    finished: dict[str, Finished] = {}
    while fitting.running:
        finished.update({done.key: done for done in fitting.step()[1]})
    return [finished[task.key] for task in tasks]


def attach(personalizer: Personalizer, base: Base) -> Attach:
    """The `Attach` of one method's states."""
    return attach_each({personalizer.name: personalizer}, base)


def attach_each(methods: Mapping[str, Personalizer], base: Base) -> Attach:
    """The `Attach` of states of any of these methods, which share a batch."""

    def attached(
        states: Sequence[UserState | None], prompts: Sequence[Sequence[int]] | None = None
    ) -> AbstractContextManager[None]:
        rows_of: dict[str, list[int]] = {}
        for row, state in enumerate(states):
            if state is not None and not state.is_base:
                rows_of.setdefault(state.method, []).append(row)
        parts = [Parts()] * len(states)
        for name, rows in rows_of.items():
            own = [state for row in rows if (state := states[row]) is not None]
            asked = None if prompts is None else [prompts[row] for row in rows]
            for row, part in zip(rows, methods[name].parts(base, own, asked), strict=True):
                parts[row] = part
        return running(base, parts)

    return attached


def frame_each(methods: Mapping[str, Personalizer], base: Base) -> Frame:
    """The `Frame` of states of any of these methods."""

    def framed(state: UserState | None, query: str) -> Framed:
        if state is None or state.is_base:
            return Framed(query)
        return methods[state.method].frame(base, state, query)

    return framed
