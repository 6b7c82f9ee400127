"""One trial as Tune sees it: a (user, configuration) handed to a packer, and what comes back.

It imports no torch and holds no model: a trial actor is a light process that Tune reuses from trial
to trial. Its `step()` returns at every checkpoint of the training, so that a scheduler can act, and
at the end with the objectives.

Of two packers drawn by the trial's name it takes the one with less to do, or the one that has the
trial already: a trial whose actor died is found again there, not trained twice. A packer that dies
ends the trial with `lost`: the searcher runs it again, since nothing is known about it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.tune import Trainable

PACKER_NAME = "packer-{}"
RESTART_SECONDS = 180.0

Event = dict[str, Any]
LOST: Event = {"lost": True, "done": True}
STOPPED: Event = {"stopped": True, "done": True}


class Trial(Trainable):  # type: ignore[misc]  # Ray is untyped here
    """Tune's trainable for one (user, configuration) after another."""

    def setup(self, config: Mapping[str, Any]) -> None:
        """Hands nothing over yet: Tune starts actors that it takes back before their first step."""
        self._packer: Any = None
        self._curve: list[tuple[str, int, int, float]] = []

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        """Goes on to another task in the same process."""
        self._abandon()
        return True

    def step(self) -> Event:
        """The next checkpoint, or the end; the first step hands the task to a packer.

        Each event carries the `curve` so far: stage, epoch, steps and validation loss of every
        checkpoint.
        """
        try:
            if self._packer is None:
                self._begin()
            event: Event = ray.get(next(self._events))
        except (RayActorError, StopIteration):
            self._packer = None
            wait_for_packers(self.config["packers"])
            return dict(LOST)
        if event["done"]:
            self._packer = None
        else:
            point = (event["stage"], event["epoch"], event["steps"], event["loss_nats"])
            self._curve.append(point)
        return {**event, "curve": list(self._curve)}

    def cleanup(self) -> None:
        """Frees the packer's place if the task has not ended."""
        self._abandon()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keeps nothing: the study is the truth."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Has nothing to load."""

    def _begin(self) -> None:
        config = self.config
        self._curve = []
        self._name = task_name(config["user"], config["key"])
        self._packer = choose(self._name, config["packers"])
        self._events: Iterator[Any] = self._packer.evaluate.options(
            name=self._name, num_returns="streaming"
        ).remote(config["user"], config["configuration"], config["seed"])

    def _abandon(self) -> None:
        if self._packer is not None:
            self._packer.leave.remote(self._name)
            self._packer = None


def task_name(digest: str, key: str) -> str:
    """What Ray's dashboard shows: the user's digest and the configuration."""
    return f"milpa/{digest}/{key}"


def choose(name: str, packers: int) -> Any:
    """The packer that has the task, or the one with less to do of two drawn by its name."""
    handles = [ray.get_actor(PACKER_NAME.format(i)) for i in pair(name, packers)]
    if len(handles) == 1:
        return handles[0]
    try:
        waiting = ray.get([handle.waiting.remote(name) for handle in handles])
    except RayActorError:
        wait_for_packers(packers)
        return choose(name, packers)
    return handles[waiting.index(min(waiting))]


def drop(name: str, packers: int) -> None:
    """Has a task stopped wherever it trains, without waiting: its place is free at the next step.

    NOTE: Tune keeps the actor of a trial that a scheduler stopped, to use it again, and says
    nothing to it until there is another trial. The packer must not train on until then.
    """
    for i in pair(name, packers):
        ray.get_actor(PACKER_NAME.format(i)).drop.remote(name)


def pair(name: str, packers: int) -> tuple[int, ...]:
    """Two different packers for a name, or the only one."""
    if packers == 1:
        return (0,)
    drawn = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    first = drawn % packers
    return first, (first + 1 + (drawn // packers) % (packers - 1)) % packers


def wait_for_packers(packers: int) -> None:
    """Returns once every packer answers again, or after three minutes."""
    end = time.monotonic() + RESTART_SECONDS
    for i in range(packers):
        while time.monotonic() < end and not _answers(i):
            time.sleep(1.0)


def _answers(packer: int) -> bool:
    try:
        ray.get(
            ray.get_actor(PACKER_NAME.format(packer)).waiting.remote(""), timeout=RESTART_SECONDS
        )
    except (RayActorError, ray.exceptions.GetTimeoutError):
        return False
    return True
