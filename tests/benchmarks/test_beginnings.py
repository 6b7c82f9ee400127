"""The two beginnings that are compared differ in their first point, and in nothing else of it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.beginnings import FIRST, WITHOUT, cohort
from benchmarks.cohorts import Extent
from benchmarks.searches import searched
from search.design import DEFAULT, default_memory
from search.space import MemoryConfig


def test_one_begins_with_the_default_and_goes_on_as_the_other_begins(tmp_path: Path) -> None:
    users = cohort(8, Extent(1, 1, 16))
    (problem,), (first, without) = users.problems, users.contenders
    assert (first.name, without.name, users.default) == (FIRST, WITHOUT, FIRST)
    begun, usual = (searched(problem, each, 0, tmp_path) for each in (first, without))
    assert begun.sources[0] == DEFAULT
    assert MemoryConfig.from_json(begun.configs[0]) == default_memory(problem.space)
    assert DEFAULT not in usual.sources
    assert begun.configs[1:8] == usual.configs[:7]
