"""What methods of a comparison give a user who has given them no history.

    control     of a method that shares something: its shared part, with states made of strangers'
                histories in the place of the user's. Of one that shares nothing: the base that all
                stand on, with what users share merged in
    strangers   the method itself, trained as it was for the user on strangers' histories, whether
                or not it shares something: what any history of these data would give

Strangers are others who are compared, so that their histories are as long as the user's; the loss
is the mean over some of them. Everything else stays: configuration, seed, shared part, and the
validation part, which says when to stop and what becomes of the state. Never among them is whoever
learned from the user's own past, nor anything of a session that a compared user's later words come
from.

A user whose best trial was no gain is answered by the base, and so is that user's control. What was
found is kept in a file for each entrant and seed, so that it is taken once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from cluster.arena import Arena
from cluster.entrant import Entrant, configuration_of
from cluster.experiment import seed_of
from cluster.measuring import Subject
from cluster.private import write_private
from cluster.tally import measured_of
from cluster.tuning import Best, chosen, shares
from cluster.unit import BASE, Unit
from cluster.validation import settled
from models.catalog import personalizer
from models.history import Histories, Interaction, split
from models.personalizer import Personalizer, Task, UserState, fit
from models.population import closed_sessions
from models.scoring import losses


@dataclass(frozen=True)
class Losses:
    """Test losses in nats per token, by user digest."""

    own: Mapping[str, float]
    control: Mapping[str, float]
    strangers: Mapping[str, float]


class Controls:
    """Of a comparison that is done: the users, and whose histories stand in for theirs.

    Args:
        arena: the comparison's.
        owners: by user id, whose past the user's training part is.
        count: how many strangers a user has.
        kept: the folder of what was found.
    """

    def __init__(self, arena: Arena, owners: Mapping[str, str], count: int, kept: Path) -> None:
        self._arena, self._count, self._kept = arena, count, kept
        bare = arena.units.read(Unit("untrained", BASE))["users"]
        self._base = {digest: own.loss_nats for digest, own in measured_of(bare).items()}
        histories, terms = Histories.open(arena.folder.data), arena.terms
        found = {user.digest: histories.load(user.user_id) for user in arena.users}
        self._closed = closed_sessions(map(split, found.values()))
        self._items = {
            digest: Subject.of(history, terms.user_said, terms.items).items
            for digest, history in found.items()
        }
        self._drawn = {
            user.digest: self._strangers_of(user.user_id, owners) for user in arena.users
        }

    def of(self, entrant: Entrant, number: int) -> Losses:
        """An entrant's, under the seed of a number."""
        final = self._arena.units.read(Unit("final", entrant.label, number))
        own = {digest: each.loss_nats for digest, each in measured_of(final["users"]).items()}
        strangers = self._found(entrant, number, own)
        control = strangers if shares(self._arena.units, entrant) else {}
        base = self._base
        return Losses({**base, **own}, {**base, **control}, {**base, **strangers})

    def _strangers_of(self, user_id: str, owners: Mapping[str, str]) -> list[str]:
        """Digests of those whose training parts a user gets in turn.

        Raises:
            ValueError: there is nobody.
        """
        others = [
            user.digest
            for user in self._arena.users
            if user_id not in (user.user_id, owners[user.user_id])
        ]
        if not others:
            raise ValueError(
                "--users: expected 3 or more, so that everybody has a stranger, got "
                f"{len(self._arena.users)}"
            )
        draw = random.Random(seed_of(self._arena.terms.seed, "strangers", user_id))
        return draw.sample(others, min(self._count, len(others)))

    def _found(self, entrant: Entrant, number: int, own: Mapping[str, float]) -> dict[str, float]:
        """Of users with a state, the loss under strangers'; read where it was taken before."""
        file = self._kept / f"{entrant.slug}-{number}.json"
        if file.is_file():
            return dict(json.loads(file.read_text(encoding="utf-8")))
        method, best = personalizer(entrant.method), chosen(self._arena.units, entrant)
        found = {}
        for digest in own:
            of_user = best[digest]
            assert of_user is not None  # whoever was trained has a best trial
            states = [
                settled(self._arena, {digest: state}).get(digest)
                for state in self._states(method, of_user, number, digest)
            ]
            found[digest] = self._mean_loss(states, self._items[digest])
        self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, json.dumps(found))
        return found

    def _states(
        self, method: Personalizer, best: Best, number: int, digest: str
    ) -> list[UserState]:
        """A user's state as it would be with each stranger's history.

        Raises:
            ValueError: none could be made.
        """
        trainings = self._arena.trainings
        configuration = configuration_of(method, best.configuration)
        shared = trainings.shared(method, configuration, number)
        own = trainings.task(method, digest, configuration, number, shared)
        tasks = [self._in_place_of(own, stranger) for stranger in self._drawn[digest]]
        states = [end.state for end in fit(method, self._arena.base, tasks)]
        known = [state for state in states if state is not None]
        if not known:
            raise ValueError(f"{method.name}: expected a state of a stranger's history, got none")
        return known

    def _in_place_of(self, task: Task, stranger: str) -> Task:
        """A user's task with a stranger's history."""
        other = self._arena.subjects.of(stranger)
        train = tuple(item for item in other.train if item.session not in self._closed)
        return replace(task, key=stranger, train=train, profile=other.profile)

    def _mean_loss(self, states: list[UserState | None], items: tuple[Interaction, ...]) -> float:
        arena = self._arena
        found = losses(arena.base, arena.attach, states, [items] * len(states), arena.frame)
        return fmean(loss.nats for loss in found)
