"""Slots that a dead shard had reserved are free again, and nobody else's are."""

from __future__ import annotations

import os
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError
from ray.util.placement_group import placement_group_table

from cluster.connection import SLOT, connected
from cluster.reserved import ShardGroups, free


class Holder:
    """Reserves as a shard's Tune does, and dies without a word."""

    def reserve(self, shard: str, count: int) -> list[Any]:
        """Groups of one slot each."""
        groups = [
            ShardGroups(shard, [{"CPU": 0, SLOT: 1}]).to_placement_group() for _ in range(count)
        ]
        ray.get([group.ready() for group in groups])
        return groups

    def die(self) -> None:
        """As by a kill."""
        os._exit(1)


def held() -> list[str]:
    """The names of groups that are not removed."""
    groups = placement_group_table().values()
    return sorted(group["name"] for group in groups if group["state"] != "REMOVED")


def test_only_what_the_dead_had_reserved_is_freed() -> None:
    with connected(None, 3, "reserved", lambda _: None, float("inf")):
        holder = ray.remote(Holder).options(num_cpus=0)
        dead, living = holder.remote(), holder.remote()
        ray.get([dead.reserve.remote("shard-1", 2), living.reserve.remote("shard-10", 1)])
        with pytest.raises(RayActorError):
            ray.get(dead.die.remote())
        assert len(held()) == 3
        assert free("shard-1") == 2
        (left,) = held()
        assert left.startswith("reserved/shard-10/")
        next_one = holder.remote()
        assert len(ray.get(next_one.reserve.remote("shard-1", 2), timeout=60)) == 2
        assert free("shard-2") == 0


def test_equal_requests_are_one_to_tune_and_reserve_apart() -> None:
    """Tune keeps what is ready by request, and two groups of one name are refused."""
    one, other = (ShardGroups("shard", [{"CPU": 0, SLOT: 1}]) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one.required_resources == {SLOT: 1}
