"""What users share, learned before the search: a Ray task on the device that ends before packers.

Whether it is learned, from whom, and how far it is. The learning itself is `models/population.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import ray

from cluster.experiment import Experiment
from cluster.folder import RunFolder
from cluster.progress import Progress
from cluster.streams import Streams
from cluster.users import Choice
from models.history import Histories, split
from models.population import AUTO_USERS, PopulationSettings, closed_sessions, prepare

Event = dict[str, Any]


@dataclass(frozen=True)
class Sharing:
    """Where the population comes from. `source` is a file of other users' interactions."""

    is_on: bool
    why: str
    source: str | None = None


def sharing(experiment: Experiment, histories: Histories, choice: Choice) -> Sharing:
    """What `--population` means for these users.

    Raises:
        FileNotFoundError: it names a file that isn't there.
    """
    others = len(histories.user_ids) - len(choice.searched)
    if experiment.population == "off":
        return Sharing(False, "population: off")
    if experiment.population == "auto":
        if others < AUTO_USERS:
            return Sharing(
                False, f"population: off, {others} users are not searched, fewer than {AUTO_USERS}"
            )
        return Sharing(True, f"population: on, {others} users are not searched")
    if not Path(experiment.population).exists():
        raise FileNotFoundError(
            f"--population: expected auto, off, or a file that is there, got "
            f"{experiment.population!r}"
        )
    return Sharing(True, f"population: from {experiment.population}", experiment.population)


def _learn_population(
    run: Path,
    experiment: Experiment,
    choice: Choice,
    source: str | None,
    threads: int,
    share: float = 1.0,
) -> Iterator[Event]:
    """Learns and merges it into RUN/base; yields its progress, last its report or its `error`.

    Where there is no source, it learns from this share of what each of the others said.
    """
    events: SimpleQueue[Event] = SimpleQueue()

    def work() -> None:
        import torch

        end: Event = {"error": "it ended early", "done": True}
        torch.set_num_threads(threads)
        try:
            settings = PopulationSettings(seed=experiment.seed, share=1.0 if source else share)
            report = _prepare(run, experiment, choice, source, settings, events)
            end = {"report": report, "done": True}
        except (ValueError, OSError) as error:
            end = {"error": str(error), "done": True}
        finally:
            events.put(end)

    threading.Thread(target=work, daemon=True).start()
    while not (event := events.get())["done"]:
        yield event
    yield event


learn_population: Any = ray.remote(  # `max_calls`: the idle process would keep its memory
    num_cpus=0, max_retries=0, max_calls=1, num_returns="streaming"
)(_learn_population)


def _prepare(
    run: Path,
    experiment: Experiment,
    choice: Choice,
    source: str | None,
    settings: PopulationSettings,
    events: SimpleQueue[Event],
) -> Mapping[str, Any]:
    folder = RunFolder(run)
    with folder.write_lock():
        searched = Histories.open(folder.data)
        ids = {user.user_id for user in choice.searched}
        # NOTE: one user's split at a time: those of all would not fit into memory.
        closed = closed_sessions(split(searched.load(user_id)) for user_id in ids)
        histories = searched
        if source is not None:
            histories = Histories.read(source, folder.population / "data")
        report: Mapping[str, Any] = prepare(
            experiment.base,
            histories,
            ids,
            closed,
            run,
            settings,
            lambda done, steps: events.put({"step": done, "steps": steps, "done": False}),
            experiment.dtype,
        )
    return report


def follow(task: Any, progress: Progress) -> None:
    """Waits for a population to be learned, and shows how far it is.

    Raises:
        ValueError: it can't be learned.
    """
    streams = Streams()
    streams.add("population", task)
    while len(streams):
        for _, event in streams.wait(1.0):
            if event.get("error") or event.get("broken"):
                raise ValueError(f"--population: {event.get('error') or event['broken']}")
            if not event["done"] and event["step"] % max(1, event["steps"] // 10) == 0:
                progress.note(f"population: step {event['step']} of {event['steps']}")
