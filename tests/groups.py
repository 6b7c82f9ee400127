"""Made-up people of two groups, whose answers have a style that their history foretells."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from models.base import Base
from models.history import Interaction
from models.personalizer import (
    Attach,
    Configuration,
    Frame,
    Person,
    Personalizer,
    Shared,
    Task,
    UserState,
    attach,
    fit,
    frame_each,
)
from models.published import BaseIdentity
from models.registry import Registry
from models.scoring import losses

STYLES = {"bakers": "bread with carrots", "poets": "Rex sleeps in Lisbon"}
TOPICS = ("dog", "soup", "house", "garden", "work", "night")


def said(group: str, user_id: str, start: int, count: int) -> tuple[Interaction, ...]:
    """What a user of a group answers, from item `start` on: always in the group's words."""
    shift = sum(map(ord, user_id))
    return tuple(
        Interaction(
            user_id,
            float(i),
            f"question {i}: what about the {TOPICS[(i + shift) % len(TOPICS)]}?",
            f"{STYLES[group]} {(i * shift) % 7}",
        )
        for i in range(start, start + count)
    )


@cache
def crowd(count: int = 32) -> tuple[Person, ...]:
    """People of either group by turns."""
    groups = sorted(STYLES)
    names = [(groups[i % 2], f"{groups[i % 2]}-{i}") for i in range(count)]
    return tuple(Person(name, said(g, name, 0, 8), said(g, name, 8, 4)) for g, name in names)


def newcomer(group: str, configuration: Configuration, shared: Shared | None = None) -> Task:
    """A user of a group whom nobody has learned from."""
    name = f"new-{group}"
    train, validation = said(group, name, 0, 12), said(group, name, 12, 4)
    return Task(name, name, train, validation, configuration, 1, shared=shared)


def states_of(
    method: Personalizer, base: Base, configuration: Configuration, shared: Shared | None
) -> dict[str, UserState]:
    """The state of a newcomer of each group."""
    tasks = [newcomer(group, configuration, shared) for group in STYLES]
    done = fit(method, base, tasks)
    states = [one.state for one in done if one.state is not None]
    return dict(zip(STYLES, states, strict=True))


def later_losses(
    method: Personalizer, base: Base, states: Sequence[UserState | None], group: str
) -> list[float]:
    """Loss of each state on what the newcomer of a group says later, in nats per token."""
    items = said(group, f"new-{group}", 20, 6)
    attached: Attach = attach(method, base)
    framed: Frame = frame_each({method.name: method}, base)
    found = losses(base, attached, states, [items] * len(states), framed)
    return [loss.nats for loss in found]


def reloaded(states: Sequence[UserState], base: Base, folder: Path) -> list[UserState]:
    """The states, published and loaded again by somebody else."""
    for state in states:
        Registry(folder).publish(state, BaseIdentity.of(base), {})
    fresh = Registry(folder)
    loaded = [fresh.load(state.user_id, base) for state in states]
    return [state for state in loaded if state is not None]
