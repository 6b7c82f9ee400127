"""One trial as Tune sees it: a (user, configuration) handed to a packer, and what comes back.

It imports no torch and holds no model: a trial actor is a light process that Tune reuses from trial
to trial. Its `step()` returns at the end, with the objectives; where a scheduler may stop trials
early, at every checkpoint of the training before it too.

Of two packers drawn by the trial's name it takes the one with less to do, or the one that has the
trial already: a trial whose actor died is found again there, not trained twice. One that doesn't
answer is passed over, since its machine may be gone: another takes its part. A packer that dies
ends the trial with `lost`: the searcher runs it again, since nothing is known about it.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError
from ray.tune import Trainable

PACKER_NAME = "packer-{}"
ANSWER_SECONDS = 10.0  # that a packer is given to say how much it has to do
SILENCE_SECONDS = 180.0  # between two complaints that none answers
NO_BENCH = -2  # what a packer says that could not make its workbench, for some minutes
NOBODY = "no packer answers and can work: waiting until one does (packer-*.log in the run's folder)"

_logger = logging.getLogger(__name__)

Say = Callable[[str], None]
Event = dict[str, Any]
LOST: Event = {"lost": True, "done": True}
REFUSED: Event = {**LOST, "refused": True}
"""Lost too, but nothing was tried: the packer could not make its workbench."""
STOPPED: Event = {"stopped": True, "done": True}


class Trial(Trainable):  # type: ignore[misc]  # Ray is untyped here
    """Tune's trainable for one (user, configuration) after another."""

    def setup(self, config: Mapping[str, Any]) -> None:
        """Hands nothing over yet: Tune starts actors that it takes back before their first step."""
        self._packer: Any = None
        self._number = 0  # of the packer

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        """Goes on to another task in the same process."""
        self._abandon()
        return True

    def step(self) -> Event:
        """The next checkpoint, where they are wanted, or the end; the first hands the task over.

        Each event says which `packer` it is from.
        """
        try:
            if self._packer is None:
                self._begin()
            event: Event = ray.get(next(self._events))
        except (RayActorError, StopIteration):
            self._packer = None
            return dict(LOST)
        if event["done"]:
            self._packer = None
        return {**event, "packer": self._number}

    def cleanup(self) -> None:
        """Frees the packer's place if the task has not ended."""
        self._abandon()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keeps nothing: the study is the truth."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Has nothing to load."""

    def _begin(self) -> None:
        config = self.config
        self._name = task_name(config["user"], config["key"])
        self._number, self._packer = choose(self._name, config["packers"])
        self._events: Iterator[Any] = self._packer.evaluate.options(
            name=self._name, num_returns="streaming"
        ).remote(
            *(config["user"], config["configuration"], config["seed"]),
            checkpoints=config["checkpoints"],
        )

    def _abandon(self) -> None:
        if self._packer is not None:
            self._packer.leave.remote(self._name)
            self._packer = None


def task_name(digest: str, key: str) -> str:
    """What Ray's dashboard shows: the user's digest and the configuration."""
    return f"milpa/{digest}/{key}"


def choose(name: str, packers: int, say: Say = _logger.warning) -> tuple[int, Any]:
    """The number and the handle of the packer that a task goes to; waits for one if it must.

    Of two drawn by its name it is the one that has the task, or the one with less to do; of one
    alone if the other doesn't answer. Where neither does, it is any other one that does.

    Args:
        name: the task's.
        packers: how many there are.
        say: told that none answers, now and then while that lasts, and when one does again.
    """
    drawn, said_at = pair(name, packers), -math.inf
    in_turn = ((drawn[0] + i) % packers for i in range(packers))
    others = tuple(i for i in in_turn if i not in drawn)
    while True:
        found = _least(name, drawn)
        if found is None:
            found = _least(name, others)
        if found is not None:
            if said_at > 0:
                say("a packer can work again")
            return found.number, found.handle
        if time.monotonic() > said_at + SILENCE_SECONDS:
            said_at = time.monotonic()
            say(NOBODY)
        time.sleep(1.0)


class _Found(NamedTuple):
    """A packer that answered."""

    waiting: int
    number: int
    handle: Any


def _least(name: str, some: Sequence[int]) -> _Found | None:
    """The one with the least to do of those that answer, the first of equals; None if none does.

    One that can't work is as good as silent.
    """
    asked: dict[Any, tuple[int, Any]] = {}
    for i in some:
        with suppress(ValueError):  # it is gone for good
            handle = ray.get_actor(PACKER_NAME.format(i))
            asked[handle.waiting.remote(name)] = (i, handle)
    if not asked:
        return None
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    found = []
    for reference in (one for one in asked if one in ready):
        with suppress(RayActorError):
            found.append(_Found(ray.get(reference), *asked[reference]))
    able = [one for one in found if one.waiting != NO_BENCH]
    return min(able, key=lambda one: one.waiting, default=None)


def is_anybody_there(packers: int) -> bool:
    """Whether any packer answers, and can work."""
    return _least("", range(packers)) is not None


def drop(name: str, packer: int) -> None:
    """Has a task stopped where it trains, without waiting: its place is free at the next step.

    NOTE: Tune keeps the actor of a trial that a scheduler stopped, to use it again, and says
    nothing to it until there is another trial. The packer must not train on until then.

    Args:
        name: the task's.
        packer: which one has it: each of a trial's results says so.
    """
    with suppress(ValueError):  # it is gone for good
        ray.get_actor(PACKER_NAME.format(packer)).drop.remote(name)


def pair(name: str, packers: int) -> tuple[int, ...]:
    """Two different packers for a name, or the only one."""
    if packers == 1:
        return (0,)
    drawn = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    first = drawn % packers
    return first, (first + 1 + (drawn // packers) % (packers - 1)) % packers
