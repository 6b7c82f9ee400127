"""No personalisation: the base for everybody. A peer like any other, and the control."""

from __future__ import annotations

from collections.abc import Sequence

from models.base import Base
from models.fitting import ReadFitting
from models.options import NO_OPTIONS, require
from models.parts import Parts
from models.personalizer import Configuration, Framed, Person, Task, UserState


class Nothing:
    """Personalizer that learns nothing."""

    name = "none"
    space = NO_OPTIONS

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> None:
        """Nothing is shared."""

    def start(self, base: Base) -> ReadFitting:
        """An empty fitting."""
        return ReadFitting(self._state)

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query alone."""
        return Framed(query)

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        """Every row runs under the base."""
        return [Parts()] * len(states)

    def _state(self, task: Task) -> UserState:
        return UserState(self.name, task.user_id, require(task.configuration).to_json(), {})
