"""Shards in processes of Ray: who runs in which, and what of them arrives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import controllers
from cluster.budget import Rules
from cluster.connection import connected
from cluster.controllers import Controller, Controllers, turned
from cluster.shard import ShardPlan
from cluster.streams import Event, Streams
from cluster.studies import SearchPlan
from search.samplers import SamplerSettings
from search.space import SearchSpace

SEARCH = SearchPlan("sqlite://", SearchSpace(4), (10,) * 4, SamplerSettings("random", 2), Rules(3))
SHARD = ShardPlan("first", {"aaaa": 1, "bbbb": 2}, SEARCH, Path(), 1, 2)


class Saying(Controller):
    """Says which process it is, and dies where the shard is called so."""

    def run(self, plan: ShardPlan, askers: Sequence[Any]) -> Iterator[list[Event]]:
        """Two events at once, and the end."""
        yield [{"process": os.getpid()}, {"shard": plan.name}]
        if plan.name == "deadly":
            os._exit(1)
        yield [{"done": True, **({"failed": "it did"} if plan.name == "failing" else {})}]


def ran(crew: Controllers, *names: str) -> dict[str, list[Event]]:
    """The events of shards that run at the same time."""
    streams = Streams()
    for name in names:
        streams.add(name, crew.start(replace(SHARD, name=name)))
    found: dict[str, list[Event]] = {name: [] for name in names}
    while len(streams):
        for name, event in streams.wait(1.0):
            found[name].append(event)
            if event.get("done"):
                crew.ended(name, event.keys().isdisjoint(("broken", "failed")))
    return found


def test_every_shard_begins_with_another_asker() -> None:
    assert [turned("abc", shards) for shards in range(4)] == [
        ("a", "b", "c"),
        ("b", "c", "a"),
        ("c", "a", "b"),
        ("a", "b", "c"),
    ]
    assert turned((), 5) == ()


def test_a_process_runs_shards_until_it_has_had_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SHARD.trials == 2 * (3 + 1)
    monkeypatch.setattr(controllers, "TRIALS_OF_PROCESS", 2 * SHARD.trials)
    with connected(None, 1, "controllers", lambda _: None, float("inf")):
        crew = Controllers((), Saying)
        first = ran(crew, "first")["first"]
        assert first == [{"process": first[0]["process"]}, {"shard": "first"}, {"done": True}]
        second = ran(crew, "second", "beside it")
        assert second["second"][0] == first[0]
        assert second["beside it"][0] != first[0]
        third = ran(crew, "failing")["failing"]
        assert third[0] == second["beside it"][0]
        died = ran(crew, "deadly")["deadly"]
        assert died[0] not in (first[0], third[0])
        assert died[-1] == {"broken": "ActorDiedError", "done": True}
        assert ran(crew, "last")["last"][0] not in (first[0], third[0], died[0])
