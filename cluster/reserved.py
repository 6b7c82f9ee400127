"""The slots that a shard's Tune reserves: Ray's placement groups, named so that they can be freed.

A group belongs to the job that its maker runs in, and lives as long (Ray frees it with its maker
only where that is a detached actor). So the groups of a shard whose process was killed keep their
slots, and the shard begun again would wait for them for ever. Tune gives its groups no name, and
Ray's table doesn't say who made one: here they get a name that does.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import tune
from ray.util import get_placement_group, placement_group, placement_group_table

_GONE = "REMOVED"


class ShardGroups(tune.PlacementGroupFactory):  # type: ignore[misc]
    """What each trial of a shard reserves, under a name of the shard's."""

    def __init__(self, shard: str, bundles: Sequence[Mapping[str, float]]) -> None:
        """Groups of these bundles.

        Args:
            shard: its name; unique in the run.
            bundles: resources, as for Tune's own factory.
        """
        super().__init__([dict(bundle) for bundle in bundles])
        self._shard = shard

    def __eq__(self, other: object) -> bool:
        """Whether it is the same shard's. NOTE: Tune compares many times a trial, and slowly."""
        return isinstance(other, ShardGroups) and self._shard == other._shard

    def __hash__(self) -> int:
        """By the shard."""
        return hash(self._shard)

    def to_placement_group(self) -> Any:
        """A new group. Ray wants each name once in a namespace."""
        name = _prefix(self._shard) + secrets.token_hex(8)
        return placement_group(self.bundles, self.strategy, name=name)


def free(shard: str) -> int:
    """Frees all that a shard's process left reserved when it ended; tells how many groups it was.

    To be called once that process is gone: those of a living one would be taken from it.
    """
    left = [
        group["name"]
        for group in placement_group_table().values()
        if group["name"].startswith(_prefix(shard)) and group["state"] != _GONE
    ]
    for name in left:
        ray.util.remove_placement_group(get_placement_group(name))
    return len(left)


def _prefix(shard: str) -> str:
    """Begins the names of a shard's groups; the table holds those of other runs of a cluster."""
    return f"{ray.get_runtime_context().namespace}/{shard}/"
