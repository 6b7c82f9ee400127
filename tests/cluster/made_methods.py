"""Methods made up for tests: they read, share, or fail in ways of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import ClassVar

import pytest
import torch

from cluster.tuning import best_of
from models import catalog
from models.base import Base
from models.fitting import ReadFitting
from models.options import Options, Space
from models.parts import Parts
from models.personalizer import (
    Configuration,
    Framed,
    Person,
    Shared,
    Task,
    UserState,
)
from models.prompt_tuning import PromptTuning
from tests.cluster.tiny_contest import USERS

WORDS = "please answer as I would"


class Hint:
    """A method that reads: it puts the same words before every query, and two soft tokens."""

    name = "hint"
    space: Space = MappingProxyType({"soft_tokens": (2, 0)})
    read: ClassVar[list[Task]] = []
    prompts: ClassVar[list[str]] = []

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared | None:
        return None

    def start(self, base: Base) -> ReadFitting:
        return ReadFitting(self._state)

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        assert state is not None
        self.prompts.append(query)
        return Framed(f"{WORDS} {query}", len(state.tensors.get("soft", ())))

    def parts(
        self, base: Base, states: Sequence[UserState], prompts: Sequence[Sequence[int]] | None
    ) -> list[Parts]:
        return [Parts(soft=state.tensors.get("soft")) for state in states]

    def _state(self, task: Task) -> UserState:
        self.read.append(task)
        assert isinstance(task.configuration, Options)
        count = task.configuration.whole("soft_tokens")
        tensors = {"soft": torch.full((count, 32), 0.1)} if count else {}
        text = {"words": WORDS}
        shared = task.shared
        told = task.configuration.to_json()
        return UserState(self.name, task.user_id, told, tensors, text, shared)


class Sharing(Hint):
    """It learns something of others first."""

    name = "sharing"
    learned: ClassVar[list[tuple[Sequence[Person], str, int]]] = []

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared | None:
        told = str(dict(configuration.to_json()))
        self.learned.append((people, told, seed))
        tensor = torch.full((3, 5), float(len(people)))
        return Shared(self.name, configuration.to_json(), {"shared": tensor})


class Needy(Hint):
    """It can't learn from so few."""

    name = "needy"

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared | None:
        raise ValueError(f"expected at least 99 other users, got {len(people)}")


class Choosy(Hint):
    """It fails for one user."""

    name = "choosy"

    def _state(self, task: Task) -> UserState:
        if task.user_id == USERS[0]:
            raise ValueError(task.train[0].response)
        return super()._state(task)


class Wide(PromptTuning):
    """Its soft tokens are more than half of what the base reads."""

    name = "wide"
    space = MappingProxyType({"tokens": (65, 80), "learning_rate": (1e-2,)})


class Faulty(Hint):
    """It has a fault that quotes the user."""

    name = "faulty"

    def _state(self, task: Task) -> UserState:
        raise KeyError(task.train[0].response)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts them into the catalog, for one test."""
    for method in (Hint, Sharing, Needy, Choosy, Wide, Faulty):
        monkeypatch.setitem(catalog.PERSONALIZERS, method.name, method)
    Hint.read.clear()
    Hint.prompts.clear()
    Sharing.learned.clear()


def better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every user's first trial that has a loss be the best, so that states are tested."""
    monkeypatch.setattr("cluster.tuning.best_of", first_with_a_loss)
    monkeypatch.setattr("cluster.finals.settled", lambda arena, states: dict(states))


def first_with_a_loss(bare, trials):  # type: ignore[no-untyped-def]
    users = {
        digest: {**own, "loss_nats": math.inf if own["loss_nats"] is not None else None}
        for digest, own in bare["users"].items()
    }
    return best_of({"users": users}, trials[:1])
