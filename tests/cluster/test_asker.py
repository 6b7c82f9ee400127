"""How many processes propose, for how many places in packs."""

from __future__ import annotations

import pytest

from cluster.asker import asker_count


@pytest.mark.parametrize(
    ("cores", "slots", "count"),
    [(2, 4, 1), (16, 4, 4), (256, 4, 4), (200, 128, 8), (1544, 1024, 64), (64, 1024, 16)],
)
def test_askers_grow_with_slots_as_far_as_cores_reach(cores: int, slots: int, count: int) -> None:
    assert asker_count(cores, slots) == count
