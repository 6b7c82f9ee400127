"""The actor that holds a device and does a comparison's units there, and all of them at work.

Units that stand in one line build upon each other and are done in order; lines are done beside each
other, as many at once as there are stations. What a unit raises ends its entrant's part in this run
and no other's: nothing is kept of it, so the same command tries it again. Where the device is what
failed, the process ends instead, and its unit is done by the next one. Reasons and the log
(`station-<n>.log` in the folder) hold no text and no user id.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from cluster.arena import Arena, ArenaSettings, Own
from cluster.connection import Place
from cluster.failures import log_failure, packer_log, reason_of
from cluster.finals import final, untrained
from cluster.folder import commit
from cluster.trainings import DamagedShared
from cluster.unit import Line, Outcome, Unit
from cluster.validation import bare, trial
from models.alive import is_alive

DEATHS = 2  # of the process that does a unit, after which it is given up

_WORK: dict[str, Callable[[Arena, Unit], Own]] = {
    "bare": bare,
    "trial": trial,
    "final": final,
    "untrained": untrained,
}


class Broken(RuntimeError):  # noqa: N818
    """A unit that failed for another reason than that its method can't run here."""


def done(arena: Arena, unit: Unit) -> Outcome:
    """Does a unit, keeps its outcome, and returns what it took."""
    began, busy = time.monotonic(), time.process_time()
    content = _WORK[unit.kind](arena, unit)
    content["seconds"] = time.monotonic() - began
    content["cpu_seconds"] = time.process_time() - busy
    content["commit"] = commit()
    arena.units.write(unit, content)
    return {name: content.get(name) for name in ("seconds", "cpu_seconds", "refused")}


class Station:
    """One device's arena, one unit at a time."""

    def __init__(self, settings: ArenaSettings, log: str) -> None:
        self._settings, self._log = settings, packer_log(Path(log))

    @cached_property
    def _arena(self) -> Arena:
        """Made when it is first needed: what it raises then reaches the caller."""
        return Arena(self._settings)

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    def ready(self) -> None:
        """Answers once the process is up, again after a death.

        Ray fails units at once until then, and would call that the next ones' deaths.
        """

    def fingerprint(self) -> str:
        """The base's."""
        return self._arena.base.fingerprint

    def do(self, unit: Unit) -> Outcome:
        """Does a unit.

        Raises:
            Broken: it failed; says where, and nothing of what was worked on.
        """
        try:
            return done(self._arena, unit)
        except DamagedShared as error:
            log_failure(self._log, f"{unit.kind} {unit.entrant} {unit.number}", error)
            raise Broken(str(error)) from None  # its words are of files, and say what to do
        except Exception as error:
            log_failure(self._log, f"{unit.kind} {unit.entrant} {unit.number}", error)
            self._doubt()
            raise Broken(reason_of(error)) from None

    def _doubt(self) -> None:
        """After a failure: ends this process if its device is what failed."""
        if "_arena" in vars(self) and not is_alive(self._arena.base.device):
            self._log.error("the device answers no more: this process ends, for another to begin")
            os._exit(1)


def start_stations(
    run: Path, base: str, terms: Any, places: Sequence[Place], first: int = 0
) -> list[Any]:
    """A station in each place, restarted by Ray when its process dies; logs are numbered."""
    actor = ray.remote(Station)
    stations = []
    for number, place in enumerate(places, first):
        settings = ArenaSettings(run, base, terms, place.device, place.threads)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 0, **place.options}
        log = str(run / f"station-{number}.log")
        stations.append(actor.options(**options).remote(settings, log))
    return stations


def work(
    stations: Sequence[Any], lines: Sequence[Line], tell: Callable[[Unit, Outcome], None]
) -> None:
    """Does all units; `tell` hears of each when it has ended, and of one that broke its line."""
    waiting, free = deque(line for line in lines if line), deque(stations)
    at_work: dict[Any, tuple[Any, Line]] = {}
    deaths: dict[Unit, int] = {}
    while waiting or at_work:
        while waiting and free:
            station, line = free.popleft(), waiting.popleft()
            at_work[station.do.remote(line[0])] = (station, line)
        ended, _ = ray.wait(list(at_work), num_returns=1)
        station, line = at_work.pop(ended[0])
        if not line:  # it is up again
            free.append(station)
            continue
        rest, has_died = _ended(ended[0], line, deaths, tell)
        if has_died:
            at_work[station.ready.remote()] = (station, [])
        else:
            free.append(station)
        if rest:  # a long line is gone on with first, so that no station waits for it at the end
            waiting.appendleft(rest)


def _ended(
    reference: Any, line: Line, deaths: dict[Unit, int], tell: Callable[[Unit, Outcome], None]
) -> tuple[Line, bool]:
    """What is left of a line once its first unit has ended, and whether its station died."""
    unit, has_died = line[0], False
    try:
        outcome = ray.get(reference)
    except RayActorError:
        has_died = True
        deaths[unit] = deaths.get(unit, 0) + 1
        if deaths[unit] < DEATHS:
            return line, True
        outcome = {"broken": "its process died"}
    except RayTaskError as error:
        outcome = {"broken": str(error.cause)}
    tell(unit, outcome)
    return [] if "broken" in outcome else line[1:], has_died
