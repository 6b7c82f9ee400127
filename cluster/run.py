"""The whole way of a search: histories, users, population, studies, winners, registry, report.

This is the driver. It starts what works on Ray, and writes down what came out. Everything it starts
goes on from what lies in the run's folder, so going on after a kill is the same way once more.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from rich.console import Console

from cluster import afterwards, gains, report, results
from cluster.asker import asker_count, start_askers
from cluster.budget import Rules
from cluster.connection import Ground, Place, connected
from cluster.controllers import Controllers
from cluster.experiment import Experiment, seed_of
from cluster.folder import RunFolder
from cluster.packer import start_packer
from cluster.preparation import Prepared, held, prepared
from cluster.process import BrokeOff, output_is_logged
from cluster.progress import Progress
from cluster.schedule import Schedule
from cluster.shard import ShardPlan
from cluster.shared import Sharing, follow, learn_population, sharing
from cluster.studies import SearchPlan
from cluster.workbench import BenchSettings, Workbench
from models.precision import packer_bytes
from search.patience import DatabaseAway
from search.samplers import SEQUENCES, SURROGATES, SamplerSettings
from search.space import SearchSpace


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
        BrokeOff, RuntimeError: the search broke; `resume` goes on.
    """
    folder = RunFolder(out.absolute())
    progress = Progress(
        console or Console(), experiment.trials, output_is_logged(), experiment.total_trials
    )
    with held(folder, resume):
        run = prepared(experiment, folder, resume, storage, examples)
        run.say(progress)
        population = sharing(experiment, run.histories, run.choice)  # refused before Ray starts
        progress.note(population.why)
        name = f"milpa-{secrets.token_hex(4)}"
        room = packer_bytes(experiment.base, experiment.dtype)
        with connected(address, experiment.slots, name, folder.remember_temporary, room) as ground:
            _work(run, population, ground, progress)
        folder.remove_temporary()
        page = report.write(folder.path, examples)
    progress.note(f"done: {page}")
    return page


def _work(run: Prepared, population: Sharing, ground: Ground, progress: Progress) -> None:
    """Population, search and winners on Ray; writes results.json."""
    seconds: dict[str, float] = {}
    with _timed(seconds, "total"):
        with _timed(seconds, "population"):
            base, learned = _base(run, population, ground.whole, progress)
        packers = _packers(run, ground, base)
        description = _raised([packer.call.remote("describe") for packer in packers])[0]
        plan = _plan(run, description, ground, progress)
        content = _settled(run, description)
        askers = start_askers(asker_count(ground.cores, ground.slots), plan.search.sampler)
        schedule = Schedule(plan, Controllers(askers), progress)  # refuses others' studies
        with _breaking_off():
            left_out = _searched(run, schedule, packers, progress, seconds)
            trained = _raised([packer.call.remote("trained") for packer in packers])
            filled = occupancy(trained, ground.slots)
            users = _users(run)
            with _timed(seconds, "personal gain"):
                gain = _gain(run, packers, users, progress)
    original = run.experiment.base
    names = ("name", "fingerprint", "layer_count")
    base_result = results.BaseResult(**{n: description[n] for n in names}, original=original)
    found = results.Results(content, base_result, learned, users, left_out, gain, seconds, filled)
    results.save(found, run.folder.path)
    if (shown := gains.table(found, progress.by_digest)) is not None:
        progress.console.print(shown)


def _base(
    run: Prepared, population: Sharing, place: Place, progress: Progress
) -> tuple[str, Mapping[str, Any] | None]:
    """The base to search on, with the population learned where that is wanted, and its report."""
    if not population.is_on:
        return run.experiment.base, None
    file = run.folder.population / "report.json"
    if not file.is_file():
        task = learn_population.options(**place.options)
        source = population.source
        follow(
            task.remote(run.folder.path, run.experiment, run.choice, source, place.threads),
            progress,
        )
    return str(run.folder.base), json.loads(file.read_text(encoding="utf-8"))


def _packers(run: Prepared, ground: Ground, base: str) -> list[Any]:
    packers = []
    for i, place in enumerate(ground.places):
        settings = BenchSettings(run.folder.path, base, run.experiment, place.device, place.threads)
        build = partial(Workbench, settings)
        packers.append(start_packer(i, build, run.folder.path, place.options))
    return packers


def _raised(references: Any) -> Any:
    """What packers answer; what one raised is raised here as it was there."""
    try:
        return ray.get(references)
    except RayTaskError as error:
        raise error.cause from error


def _plan(
    run: Prepared, description: Mapping[str, Any], ground: Ground, progress: Progress
) -> ShardPlan:
    """One shard with every user; the schedule cuts it."""
    e = run.experiment
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
    users = len(run.choice.searched)
    for said in (said_of_size(space.size(), e.trials), said_of_total(e, users)):
        if said is not None:
            progress.note(said)
    per_rank = description["per_rank"]
    sampler = SamplerSettings(e.sampler, e.initial_points, e.design)
    transfer = e.transfer == "auto" and e.sampler not in SEQUENCES  # those ask nobody
    base = description["fingerprint"]
    rules = Rules(e.trials, e.initial_points, e.total_trials, e.batch, e.stop_below)
    plan = SearchPlan(run.storage, space, per_rank, sampler, rules, transfer, base)
    if e.total_trials is not None and e.sampler not in SURROGATES:
        progress.note(f"{e.sampler} doesn't say what it expects: users share all trials alike")
    seeds = {user.digest: user.seed for user in run.choice.searched}
    where = (run.folder.path, len(ground.places), ground.slots)
    return ShardPlan("all", seeds, plan, *where, e.stop_early, e.repeat_winner)


def said_of_size(size: int, trials: int) -> str | None:
    """What is said of a space that holds fewer configurations than a user has trials."""
    if size >= trials:
        return None
    return f"the space holds {size} configurations: a user's search ends after them, not {trials}"


def said_of_total(experiment: Experiment, users: int) -> str | None:
    """What is said of a total that is more than so many users may have."""
    total, each = experiment.total_trials, experiment.trials
    if total is None or total <= users * each:
        return None
    return f"--total-trials {total} is not reached: {users} users have at most {each} trials each"


def occupancy(trained: Sequence[tuple[int, int]], slots: int) -> float | None:
    """The share of the packs' places that held a memory, mean over steps; None without a step.

    Args:
        trained: each packer's steps, and the memories in them, added up.
        slots: places of all packers.
    """
    steps, memories = sum(s for s, _ in trained), sum(m for _, m in trained)
    return memories * len(trained) / (steps * slots) if steps else None


def _settled(run: Prepared, description: Mapping[str, Any]) -> dict[str, Any]:
    """What the run resolves to, written down at its first start.

    Raises:
        ValueError: going on, the base is another one than it was.
    """
    now = description["fingerprint"]
    if not run.folder.settings.is_file():
        resolved = {
            "data_digest": run.histories.digest,
            "base_fingerprint": now,
            "storage": run.storage,
            "examples": run.examples,
        }
        return run.folder.store(run.experiment, resolved)
    stored = run.folder.stored()
    if stored["base_fingerprint"] != now:
        raise ValueError(
            f"{run.folder.path}: made on another base than {run.experiment.base} is now: the "
            f"fingerprint was {stored['base_fingerprint'][:12]}, it is {now[:12]}"
        )
    return stored


def _searched(
    run: Prepared,
    schedule: Schedule,
    packers: Sequence[Any],
    progress: Progress,
    seconds: dict[str, float],
) -> tuple[results.LeftOut, ...]:
    """Searches every user and publishes everybody; returns those who have no winner."""
    with _timed(seconds, "search and winners"), progress.shown():
        schedule.run()
    progress.say_lost()
    pairs = run.histories.pair_counts
    unscored = (
        results.LeftOut(user.user_id, pairs[user.user_id], schedule.unscored[user.digest])
        for user in run.choice.searched
        if user.digest in schedule.unscored
    )
    left_out = (*run.choice.left_out, *unscored)
    afterwards.publish_left_out(packers, {user.user_id: user.reason for user in left_out})
    return left_out


def _users(run: Prepared) -> tuple[results.UserResult, ...]:
    files = [run.folder.winners / f"{user.digest}.json" for user in run.choice.searched]
    return tuple(
        results.UserResult.from_json(json.loads(file.read_text(encoding="utf-8")))
        for file in files
        if file.is_file()
    )


def _gain(
    run: Prepared, packers: Sequence[Any], users: Sequence[results.UserResult], progress: Progress
) -> results.Gain | None:
    """Own memories against strangers'; None where there is no stranger."""
    if len(users) < 2:
        return None
    progress.note("measuring every memory against strangers'")
    return afterwards.personal_gain(packers, users, seed_of(run.experiment.seed, "strangers"))


@contextmanager
def _breaking_off() -> Iterator[None]:
    """From here on there is something to go on with, whatever goes wrong."""
    try:
        yield
    except DatabaseAway as error:
        raise BrokeOff(f"the search broke off: {error}") from error
    except (ValueError, OSError) as error:
        raise RuntimeError(
            f"the search broke off: {error}; what it did is kept, --resume goes on"
        ) from error


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began
