"""The packer without Ray: its coroutines in one event loop, over a bench that can fail."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.bench import Events
from cluster.packer import Packer
from cluster.trial import NO_BENCH, REFUSED, Event, pair, task_name
from search.space import MemoryConfig
from tests.cluster import frail

WORDS = "what the user said"
CONFIG = MemoryConfig((0, 1), 4, 1e-3)
OTHER = MemoryConfig((2,), 8, 1e-2)


class Steps:
    """A bench whose tasks take three steps each; users named in `bad_*` fail there."""

    def __init__(self) -> None:
        self.training: dict[str, int] = {}
        self.waiting: list[str] = []
        self.added: list[str] = []
        self.stopped: list[str] = []
        self.scored: list[tuple[str, ...]] = []
        self.bad_add = self.bad_score = ""
        self.broken_steps = 0
        self.go = threading.Event()
        self.go.set()

    def add(self, name: str, digest: str, configuration: MemoryConfig, seed: int) -> None:
        if digest == self.bad_add:
            raise ValueError(WORDS)
        self.added.append(name)
        self.training[name] = 3

    def add_winner(
        self, name: str, digest: str, configuration: MemoryConfig, seed: int, reason: str | None
    ) -> None:
        self.add(name, digest, configuration, seed)

    def train(self) -> Events:
        assert self.go.wait(20)
        if self.broken_steps:
            self.broken_steps -= 1
            raise RuntimeError(WORDS)
        self.training = {name: left - 1 for name, left in self.training.items()}
        over = [name for name, left in self.training.items() if not left]
        self.waiting += over
        for name in over:
            del self.training[name]
        point = {"stage": "tuning", "epoch": 1, "steps": 1, "loss_nats": 1.0, "done": False}
        return [(name, dict(point)) for name in self.training]

    def ready(self) -> list[str]:
        return list(self.waiting)

    def score(self, names: Sequence[str]) -> Events:
        if any(self.bad_score and self.bad_score in name for name in names):
            raise ValueError(WORDS)
        self.scored.append(tuple(names))
        self.waiting = [name for name in self.waiting if name not in names]
        return [(name, {"rouge_l": 0.5, "done": True}) for name in names]

    def stop(self, name: str) -> None:
        self.stopped.append(name)
        self.training.pop(name, None)
        self.waiting = [one for one in self.waiting if one != name]

    def give_up(self) -> list[str]:
        names, self.training = list(self.training), {}
        return names

    def busy(self) -> bool:
        return bool(self.training or self.waiting)

    def is_alive(self) -> bool:
        return True


class Place:
    """A packer over `Steps`, and its log."""

    def __init__(self, folder: Path) -> None:
        self.bench = Steps()
        self.log = folder / "packer-0.log"
        self.packer = Packer(lambda: self.bench, str(self.log))

    async def trial(self, digest: str, config: MemoryConfig = CONFIG) -> list[Event]:
        return [event async for event in self.packer.evaluate(digest, config.to_json(), 0)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def test_a_trial_streams_its_checkpoints_and_then_its_end(place: Place) -> None:
    events = run(place.trial("aaaa"))
    assert [event["done"] for event in events] == [False, False, True]
    assert events[-1]["rouge_l"] == 0.5
    assert [len(event["curve"]) for event in events] == [1, 2, 2]


def test_checkpoints_that_nobody_wants_are_not_streamed(place: Place) -> None:
    (end,) = run(_all(place.packer.evaluate("aaaa", CONFIG.to_json(), 0, checkpoints=False)))
    assert end["done"]
    assert len(end["curve"]) == 2


def test_a_repeat_of_a_trial_is_a_task_of_its_own(place: Place) -> None:
    async def twice() -> None:
        trial = place.trial("aaaa")
        again = place.packer.evaluate("aaaa", CONFIG.to_json(), 1, 1)
        await asyncio.gather(trial, _all(again))

    run(twice())
    assert sorted(place.bench.added) == [
        task_name("aaaa", CONFIG.key),
        task_name("aaaa", f"repeat-1-{CONFIG.key}"),
    ]


async def _all(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


def test_trials_that_end_together_are_scored_together(place: Place) -> None:
    async def three() -> None:
        await asyncio.gather(*(place.trial(user) for user in ("aaaa", "bbbb", "cccc")))

    run(three())
    names = [task_name(user, CONFIG.key) for user in ("aaaa", "bbbb", "cccc")]
    assert place.bench.scored == [tuple(names)]


def test_whoever_asks_for_the_same_task_follows_it(place: Place) -> None:
    async def twice() -> list[list[Event]]:
        return list(await asyncio.gather(place.trial("aaaa"), place.trial("aaaa")))

    first, second = run(twice())
    assert first == second
    assert len(place.bench.added) == 1


def test_an_end_that_nobody_took_is_still_there(place: Place) -> None:
    async def later() -> tuple[list[Event], list[Event]]:
        return await place.trial("aaaa"), await place.trial("aaaa")

    first, second = run(later())
    assert first == second
    assert len(place.bench.added) == 1


@pytest.mark.parametrize("place_of_failure", ["bad_add", "bad_score"])
def test_one_that_raises_fails_alone_and_without_its_words(
    place: Place, place_of_failure: str
) -> None:
    async def two() -> list[list[Event]]:
        return list(await asyncio.gather(place.trial("aaaa"), place.trial("bbbb")))

    setattr(place.bench, place_of_failure, "aaaa")
    bad, good = run(two())
    assert bad[-1]["done"]
    assert bad[-1]["error"].startswith("ValueError in test_packer.py")
    assert good[-1]["rouge_l"] == 0.5
    assert WORDS not in place.log.read_text()
    assert "ValueError" in place.log.read_text()


def test_a_step_that_raises_fails_what_was_training_and_nothing_after(place: Place) -> None:
    async def both() -> tuple[list[list[Event]], list[Event]]:
        first = await asyncio.gather(place.trial("aaaa"), place.trial("bbbb"))
        return list(first), await place.trial("aaaa", OTHER)

    place.bench.broken_steps = 1
    first, after = run(both())
    assert all(events[-1]["error"].startswith("RuntimeError") for events in first)
    assert after[-1]["rouge_l"] == 0.5


def test_a_task_is_dropped_when_the_last_one_leaves_it(place: Place) -> None:
    name = task_name("aaaa", CONFIG.key)

    async def leaving(followers: int) -> list[int]:
        place.bench.go.clear()
        tasks = [asyncio.create_task(place.trial("aaaa")) for _ in range(followers)]
        await asyncio.sleep(0.05)
        waiting = []
        for _ in range(followers):
            waiting.append(await place.packer.waiting(name))
            await place.packer.leave(name)
        waiting.append(await place.packer.waiting(name))
        for task in tasks:
            task.cancel()
        place.bench.go.set()
        await place.trial("bbbb")
        return waiting

    assert run(leaving(2)) == [-1, -1, 0]
    assert place.bench.stopped == [name]


def test_a_stopped_task_is_dropped_whoever_follows_it_and_they_hear_of_it(place: Place) -> None:
    name = task_name("aaaa", CONFIG.key)

    async def stopping() -> list[list[Event]]:
        place.bench.go.clear()
        tasks = [asyncio.create_task(place.trial("aaaa")) for _ in range(2)]
        await asyncio.sleep(0.05)
        await place.packer.drop(name)
        await place.packer.drop(name)
        assert await place.packer.waiting(name) == 0
        followed = list(await asyncio.gather(*tasks))
        place.bench.go.set()
        await place.trial("bbbb")
        await place.packer.leave(name)
        return followed

    assert run(stopping()) == [[{"stopped": True, "done": True, "curve": []}]] * 2
    assert place.bench.stopped == [name]
    assert name not in place.bench.training
    assert name not in [one for names in place.bench.scored for one in names]


def test_a_call_that_follows_a_task_that_was_left_ends(place: Place) -> None:
    async def leaving() -> list[Event]:
        place.bench.go.clear()
        task = asyncio.create_task(place.trial("aaaa"))
        await asyncio.sleep(0.05)
        await place.packer.leave(task_name("aaaa", CONFIG.key))
        place.bench.go.set()
        return await task

    assert run(leaving())[-1]["done"]


def test_a_task_that_has_ended_is_not_stopped(place: Place) -> None:
    async def late() -> list[list[Event]]:
        first = await place.trial("aaaa")
        await place.packer.drop(task_name("aaaa", CONFIG.key))
        return [first, await place.trial("aaaa")]

    first, again = run(late())
    assert first == again
    assert place.bench.stopped == []


def test_a_call_runs_between_steps_in_the_thread_of_the_pack(place: Place) -> None:
    async def called() -> tuple[int, int]:
        place.bench.thread = threading.get_ident  # type: ignore[attr-defined]
        return await place.packer.call("thread"), threading.get_ident()

    there, here = run(called())
    assert there != here


def test_what_a_bench_raises_when_it_is_made_reaches_the_caller(tmp_path: Path) -> None:
    def build() -> Steps:
        raise ValueError("no tokenizer")

    packer = Packer(build, str(tmp_path / "log"))
    with pytest.raises(ValueError, match="no tokenizer"):
        run(packer.call("busy"))


def test_a_bench_that_cannot_be_made_again_loses_its_trials_and_fails_none(tmp_path: Path) -> None:
    bench, broken = Steps(), [True]

    def build() -> Steps:
        if broken:
            raise OSError(WORDS)
        return bench

    async def twice() -> list[Any]:
        packer = Packer(build, str(tmp_path / "log"))
        first = [event async for event in packer.evaluate("aaaa", CONFIG.to_json(), 0)]
        between = await packer.waiting("another")
        broken.clear()
        return [
            first,
            between,
            [event async for event in packer.evaluate("aaaa", CONFIG.to_json(), 0)],
        ]

    first, between, second = run(twice())
    assert first == [{**REFUSED, "curve": []}]
    assert between == NO_BENCH  # so that nobody prefers it for having nothing to do
    assert second[-1]["rouge_l"] == 0.5


@pytest.mark.parametrize("where", ["add", "train", "score"])
def test_a_process_ends_with_its_device_and_its_log_says_why(tmp_path: Path, where: str) -> None:
    log = tmp_path / "packer-0.log"
    process = multiprocessing.get_context("spawn").Process(target=frail.outlive, args=(log, where))
    process.start()
    process.join()
    assert process.exitcode == 1
    assert (
        log.read_text()
        .rstrip()
        .endswith("the device answers no more: this process ends, for another to begin")
    )
    assert frail.WORDS not in log.read_text()


@pytest.mark.parametrize("packers", [1, 2, 3, 8])
def test_two_different_packers_are_drawn_by_a_name(packers: int) -> None:
    drawn: Callable[[int], tuple[int, ...]] = lambda i: pair(f"task {i}", packers)  # noqa: E731
    assert drawn(0) == drawn(0)
    found = [drawn(i) for i in range(200)]
    assert all(len(set(pair_)) == min(2, packers) for pair_ in found)
    assert {first for first, *_ in found} == set(range(packers))
