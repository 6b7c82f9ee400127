"""The whole way of a search: histories, users, population, studies, winners, registry, report.

This is the driver. It reads what a person gave, refuses what can't work before any training, starts
what works on Ray, and writes down what came out. Everything it starts goes on from what lies in the
run's folder, so going on after a kill is the same way once more.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from rich.console import Console

from cluster import report, results
from cluster.asker import start_askers
from cluster.connection import Ground, Place, connected
from cluster.experiment import Experiment, seed_of
from cluster.folder import RunFolder
from cluster.packer import start_packer
from cluster.progress import Progress
from cluster.schedule import Schedule
from cluster.shard import ShardPlan
from cluster.shared import learn_population, sharing
from cluster.streams import Streams
from cluster.studies import SearchPlan
from cluster.users import Choice, choose
from cluster.workbench import BenchSettings, Workbench
from models.history import Histories
from search.space import SearchSpace

STRANGERS_NEED = 2  # users, for a matrix of own and strangers' memories


@dataclass(frozen=True)
class _Ready:
    """A run whose data is read and whose users are drawn: nothing is trained yet."""

    experiment: Experiment
    folder: RunFolder
    histories: Histories
    choice: Choice


def search(
    experiment: Experiment,
    out: Path,
    *,
    resume: bool = False,
    address: str | None = None,
    storage: str | None = None,
    examples: bool = True,
    console: Console | None = None,
) -> Path:
    """Runs an experiment, or goes on with it, and returns its report's path.

    Args:
        experiment: what to do.
        out: the run's folder.
        resume: go on where the run in this folder was.
        address: an existing Ray cluster; None starts one here for as long as it takes.
        storage: where studies are kept; None is a file in the run's folder.
        examples: whether the report quotes users.
        console: where progress goes.

    Raises:
        ValueError, OSError: something given can't work; nothing was trained, nothing is lost.
    """
    began = time.monotonic()
    folder = RunFolder(out.absolute())
    with _begun(folder, resume):
        ready = _prepared(experiment, folder, resume)
        progress = Progress(console or Console(), experiment.trials)
        _say(ready, progress)
        namespace = f"milpa-{secrets.token_hex(4)}"
        with connected(address, experiment.slots, namespace, folder.remember_temporary) as ground:
            _worked(ready, ground, storage or folder.default_storage, progress)
        folder.remove_temporary()
    page = report.write(folder.path, examples)
    progress.note(f"done in {_minutes(time.monotonic() - began)}: {page}")
    return page


@contextmanager
def _begun(folder: RunFolder, resume: bool) -> Iterator[None]:
    """The folder, held by this driver alone; one that was made in vain is removed again."""
    folder.begin(resume)
    lock = folder.lock()
    try:
        yield
    except (ValueError, OSError):
        if not resume and not folder.settings.is_file():
            shutil.rmtree(folder.path)
        raise
    finally:
        lock.close()


def _prepared(experiment: Experiment, folder: RunFolder, resume: bool) -> _Ready:
    """Reads the data into the run's folder and draws the users; what is there already stays."""
    if resume:
        folder.check_settings(experiment)
        folder.remove_temporary()
    if (folder.path / "users.json").is_file():
        return _Ready(experiment, folder, Histories.open(folder.data), Choice.load(folder.path))
    histories = Histories.read(experiment.data, folder.data)
    choice = choose(histories, experiment, folder.key())
    choice.save(folder.path)
    return _Ready(experiment, folder, histories, choice)


def _say(ready: _Ready, progress: Progress) -> None:
    """What was read, and what that means for users."""
    histories, choice = ready.histories, ready.choice
    users, marked = len(histories.user_ids), sum(not user.by_session for user in choice.searched)
    progress.note(f"{len(histories)} interactions of {users} users; the run is {ready.folder.path}")
    for name, count in histories.counts.items():
        if count:
            progress.note(f"{count} {name.replace('_', ' ')} in the data")
    split = f", {marked} of them not split between sessions" if marked else ""
    progress.note(f"{len(choice.searched)} users are searched{split}")
    for user in choice.left_out[:10]:
        progress.note(f"left out: {user.user_id[:80]!r}: {user.reason}")
    if len(choice.left_out) > 10:
        progress.note(f"left out: {len(choice.left_out) - 10} more")


def _worked(ready: _Ready, ground: Ground, storage: str, progress: Progress) -> None:
    """Population, search and winners on Ray; writes results.json."""
    seconds: dict[str, float] = {}
    with _timed(seconds, "population"):
        base, population = _base(ready, ground.places[0], progress)
    packers = _packers(ready, ground, base)
    description = _raised(packers[0].call.remote("describe"))
    content = _settle(ready, description)
    plan = _plan(ready, description, ground, storage, progress)
    askers = start_askers(_asker_count(), plan.search.sampler, plan.search.initial)
    with _timed(seconds, "search and winners"), progress.shown():
        schedule = Schedule(plan, askers, progress)
        schedule.run()
    left_out = (*ready.choice.left_out, *_unscored(ready.choice, schedule.unscored))
    _raised(packers[0].call.remote("publish_left_out", {u.user_id: u.reason for u in left_out}))
    with _timed(seconds, "personal gain"):
        gain = _gain(ready, packers[0], progress)
    found = results.Results(
        experiment=content,
        base=results.BaseResult(
            description["name"],
            description["fingerprint"],
            description["layer_count"],
            ready.experiment.base,
        ),
        population=population,
        users=_users(ready),
        left_out=left_out,
        gain=gain,
        seconds=seconds,
    )
    results.save(found, ready.folder.path)


def _base(ready: _Ready, place: Place, progress: Progress) -> tuple[str, Mapping[str, Any] | None]:
    """The base to search on, with the population learned where that is wanted, and its report."""
    found = sharing(ready.experiment, ready.histories, ready.choice)
    progress.note(found.why)
    if not found.is_on:
        return ready.experiment.base, None
    file = ready.folder.population / "report.json"
    if not file.is_file():
        task = learn_population.options(**place.options).remote(
            ready.folder.path, ready.experiment, ready.choice, found.source, place.threads
        )
        _follow_population(task, progress)
    return str(ready.folder.base), json.loads(file.read_text(encoding="utf-8"))


def _follow_population(task: Any, progress: Progress) -> None:
    streams = Streams()
    streams.add("population", task)
    while len(streams):
        for _, event in streams.wait(1.0):
            if event.get("error") or event.get("broken"):
                raise ValueError(f"--population: {event.get('error') or event['broken']}")
            if not event["done"] and event["step"] % max(1, event["steps"] // 10) == 0:
                progress.note(f"population: step {event['step']} of {event['steps']}")


def _packers(ready: _Ready, ground: Ground, base: str) -> list[Any]:
    packers = []
    for i, place in enumerate(ground.places):
        settings = BenchSettings(
            ready.folder.path, base, ready.experiment, place.device, place.threads
        )
        build = lambda settings=settings: Workbench(settings)  # noqa: E731
        packers.append(start_packer(i, build, ready.folder.path, place.options))
    return packers


def _raised(reference: Any) -> Any:
    """What a packer answers; what it raised is raised here as it was there."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error


def _settle(ready: _Ready, description: Mapping[str, Any]) -> dict[str, Any]:
    """Writes down what the run resolved to, at its first start.

    Raises:
        ValueError: going on, the base is another one than it was.
    """
    folder = ready.folder
    if not folder.settings.is_file():
        resolved = {
            "data_digest": ready.histories.digest,
            "base_fingerprint": description["fingerprint"],
        }
        return folder.store(ready.experiment, resolved)
    stored = folder.stored()
    if stored["base_fingerprint"] != description["fingerprint"]:
        raise ValueError(
            f"{folder.path}: made on another base than {ready.experiment.base} is now: the "
            f"fingerprint was {stored['base_fingerprint'][:12]}, it is "
            f"{description['fingerprint'][:12]}"
        )
    return stored


def _plan(
    ready: _Ready,
    description: Mapping[str, Any],
    ground: Ground,
    storage: str,
    progress: Progress,
) -> ShardPlan:
    """One shard with every user; the schedule cuts it."""
    e = ready.experiment
    space, left_out = SearchSpace.for_base(
        description["layer_count"],
        description["smallest_dimension"],
        ranks=e.ranks,
        learning_rates=e.learning_rates,
        search_layers=e.search_layers,
        search_number=e.search_number,
    )
    if left_out:
        listed = ", ".join(map(str, left_out))
        progress.note(f"ranks left out, above half the smallest feed-forward dimension: {listed}")
    plan = SearchPlan(
        storage, space, description["per_rank"], e.sampler, e.initial_points, e.trials
    )
    seeds = {user.digest: user.seed for user in ready.choice.searched}
    return ShardPlan("all", seeds, plan, ready.folder.path, len(ground.places), ground.slots)


def _asker_count() -> int:
    return max(1, min(4, len(os.sched_getaffinity(0)) // 4))


def _unscored(choice: Choice, reasons: Mapping[str, str]) -> list[results.LeftOut]:
    return [
        results.LeftOut(user.user_id, 0, reasons[user.digest])
        for user in choice.searched
        if user.digest in reasons
    ]


def _users(ready: _Ready) -> tuple[results.UserResult, ...]:
    files = [ready.folder.winners / f"{user.digest}.json" for user in ready.choice.searched]
    return tuple(
        results.UserResult.from_json(json.loads(file.read_text(encoding="utf-8")))
        for file in files
        if file.is_file()
    )


def _gain(ready: _Ready, packer: Any, progress: Progress) -> results.Gain | None:
    """Own memories against strangers', where there are strangers."""
    digests = [user.digest for user in _users(ready)]
    if len(digests) < STRANGERS_NEED:
        return None
    progress.note("measuring every memory against strangers'")
    seed = seed_of(ready.experiment.seed, "strangers")
    matrix = _raised(packer.call.remote("gain", digests, seed))
    return results.Gain(matrix.users, matrix.loss, matrix.recall)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
