"""What every method that adapts the base to a user offers, and what flows in and out of it.

A `Task` (one user's text and one configuration) goes in, a `UserState` (tensors and text) comes
out. Scoring, registry and engine see these types only, so they know no method. This file knows no
file format, no Ray and no search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from models.base import Base
from models.history import Interaction, UserSaid
from search.space import MemoryConfig


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

    @property
    def is_base(self) -> bool:
        """Whether this state adds nothing: the user is answered by the base."""
        return not self.tensors and not self.text


Attach = Callable[[Sequence[UserState | None]], AbstractContextManager[None]]
"""Opens a context in which row i of any batch runs under state i (None: the base)."""


@dataclass(frozen=True)
class Budget:
    """How long one task trains. Zero epochs switch a stage off.

    `minimum_steps` stretches the epochs of a short history; `epoch_tokens` cuts a long one to its
    newest tokens, in each stage; `patience_epochs` ends a stage after so many epochs without a
    better validation loss.
    """

    injection_epochs: int = 3
    tuning_epochs: int = 3
    minimum_steps: int = 20
    patience_epochs: int = 1
    epoch_tokens: int | None = 8192


@dataclass(frozen=True)
class Task:
    """One user's training and validation parts, and the configuration to train. No test part."""

    key: str
    user_id: str
    train: tuple[Interaction, ...]
    validation: tuple[Interaction, ...]
    configuration: MemoryConfig
    seed: int
    user_said: UserSaid = "response"
    budget: Budget = Budget()


@dataclass(frozen=True)
class Report:
    """Validation loss (nats per token) at a checkpoint inside a training."""

    key: str
    stage: str
    epoch: int
    steps: int
    loss_nats: float


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

    def step(self) -> tuple[list[Report], list[Finished]]:
        """One optimiser step of every running task."""

    def stop(self, key: str) -> None:
        """Drop a task: it is neither reported nor finished."""


class Personalizer(Protocol):
    """A method that adapts the base to a user."""

    name: str

    def start(self, base: Base) -> Fitting:
        """An empty fitting on a base."""

    def attached(
        self, base: Base, states: Sequence[UserState | None]
    ) -> AbstractContextManager[None]:
        """A context in which row i of any batch runs under `states[i]`."""

    def prompt(self, state: UserState | None, query: str) -> str:
        """The query, with whatever words the method adds to it."""


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
    """`personalizer.attached` with its base filled in."""
    return lambda states: personalizer.attached(base, states)
