"""Trainings of a comparison: one method, each user under a configuration, all in one pack.

What a method shares is learned before, from people who are not compared, once for a configuration
and a seed; it is kept on disk beside what it cost, apart from any user's own cost. A user whose
training fails is told as failed, and fails nobody else's. Where what was kept of a shared part is
damaged, nothing is told of the method: that is mended, and tried again. The test part is never read
here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cluster.apart import common_reason, together_or_apart
from cluster.experiment import seed_of
from cluster.folder import RunFolder
from cluster.subjects import Subjects
from cluster.terms import Terms
from cluster.unit import Unit, Units, canonical
from cluster.users import Choice
from models import sharing
from models.base import Base
from models.history import Histories, split
from models.personalizer import (
    Configuration,
    Finished,
    Person,
    Personalizer,
    Shared,
    Task,
    UserState,
    fit,
)
from models.population import closed_sessions

# As many pairs as a population is learned from.
PEOPLE, PAIRS = 100, 16


@dataclass(frozen=True)
class Trained:
    """How the trainings of some users ended: by digest, those that gave a state.

    `lost` counts what each one's text lost on its way into the state. `seconds` is the time of all
    of them, without what is shared; `reason` says why the method can't run here, where nobody's
    training ended well.
    """

    states: Mapping[str, UserState] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str | None = None


class DamagedShared(RuntimeError):  # noqa: N818
    """What was kept of a shared part is not what was written. Its words are of files alone."""


class Trainings:
    """Trains any method's users on one base."""

    def __init__(self, folder: RunFolder, base: Base, terms: Terms, subjects: Subjects) -> None:
        self._folder, self._base, self._terms = folder, base, terms
        self._subjects, self._units = subjects, Units(folder.path)
        self._choice = Choice.load(folder.path)
        self._seeds = {user.digest: user.seed for user in self._choice.searched}

    def train(
        self, method: Personalizer, wanted: Mapping[str, Configuration], repeat: int
    ) -> Trained:
        """Each user, by digest, under a configuration and the seed of a number.

        Raises:
            DamagedShared: what users share was learned before, and can't be read.
        """
        distinct = {canonical(each.to_json()): each for each in wanted.values()}
        found = together_or_apart(
            lambda some: [self.shared(method, each, repeat) for each in some],
            list(distinct.values()),
        )
        shared = dict(zip(distinct, found, strict=True))
        tasks = [
            self.task(method, digest, configuration, repeat, part)
            for digest, configuration in wanted.items()
            if not isinstance(part := shared[canonical(configuration.to_json())], ValueError)
        ]
        refused = [part for part in found if isinstance(part, ValueError)]
        began = time.monotonic()
        ended = together_or_apart(lambda some: fit(method, self._base, some), tasks)
        seconds = time.monotonic() - began
        return _trained(ended, seconds, refused)

    def task(
        self,
        method: Personalizer,
        digest: str,
        configuration: Configuration,
        repeat: int,
        shared: Shared | None,
    ) -> Task:
        """A user's training under a configuration and the seed of a number."""
        user = self._subjects.of(digest)
        told = canonical(configuration.to_json())
        return Task(
            key=digest,
            user_id=user.user_id,
            train=user.train,
            validation=user.validation,
            configuration=configuration,
            seed=seed_of(self._seeds[digest], method.name, told, repeat),
            user_said=self._terms.user_said,
            budget=self._terms.budget,
            profile=user.profile,
            shared=shared,
        )

    def shared(
        self, method: Personalizer, configuration: Configuration, repeat: int
    ) -> Shared | None:
        """What a method shares, read where it was learned before; None where it is nothing.

        Raises:
            ValueError: it can't be learned.
            DamagedShared: it was learned before, and can't be read.
        """
        told = canonical(configuration.to_json())
        unit = Unit("shared", method.name, repeat, told)
        place = self._folder.path / "shared"
        if unit in self._units:
            return self._learned_before(unit)
        began, busy = time.monotonic(), time.process_time()
        seed = seed_of(self._terms.seed, method.name, told, repeat)
        shared = method.learn(self._base, self._people, configuration, seed)
        if shared is None:
            return None
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - busy
        digest = sharing.put(place, shared)
        content = {
            "digest": digest,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "parameters": sum(tensor.numel() for tensor in shared.tensors.values()),
            "stored_bytes": sum(f.stat().st_size for f in (place / digest).iterdir()),
            "people": len(self._people),
            "pairs": sum(len(person.pairs) for person in self._people),
        }
        self._units.write(unit, content)
        return shared

    def _learned_before(self, unit: Unit) -> Shared:
        try:
            digest = self._units.read(unit)["digest"]
            return sharing.get(self._folder.path / "shared", digest)
        except ValueError as error:
            raise DamagedShared(
                f"what {unit.entrant} shares can't be read: {error}; put it back as it was, or "
                f"remove {self._units.folder / unit.name}.json, and it is learned again"
            ) from error

    @cached_property
    def _people(self) -> list[Person]:
        """Whom methods learn from: nobody who is compared, in no session of their later words."""
        histories = Histories.open(self._folder.data)
        compared = {user.user_id for user in self._choice.searched}
        closed = closed_sessions(split(histories.load(user)) for user in sorted(compared))
        others = (histories.load(user) for user in histories.user_ids if user not in compared)
        return sharing.people(others, closed, PEOPLE, PAIRS, seed_of(self._terms.seed, "people"))


def _trained(
    ended: Sequence[Finished | ValueError], seconds: float, refused: Sequence[ValueError]
) -> Trained:
    finished = [end for end in ended if isinstance(end, Finished) and end.state is not None]
    if finished:
        states = {end.key: end.state for end in finished if end.state is not None}
        steps = {end.key: end.steps for end in finished}
        lost = {end.key: end.counts for end in finished}
        return Trained(states, steps, lost, seconds)
    errors = [end for end in ended if isinstance(end, ValueError)]
    reason = str(refused[0])[:300] if refused else common_reason(errors)
    return Trained(seconds=seconds, reason=reason)
