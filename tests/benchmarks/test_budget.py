"""Sharing a total, replayed on searches that were kept."""

from pathlib import Path

import pytest

from benchmarks import budget
from benchmarks.budget import Course, searched, shared, stops, table
from benchmarks.problem import MadeUpProblem
from cluster.budget import Rules
from search.samplers import SamplerSettings

FLOOR = budget.SETTINGS.initial


def course(user: str, promise: float, reached: float) -> Course:
    """A search that climbs evenly, and promises the same at every step."""
    volumes = [reached * n / budget.CEILING for n in range(1, budget.CEILING + 1)]
    return Course(user, volumes, [None] * FLOOR + [promise] * (budget.CEILING - FLOOR))


COURSES = [course("rising", 0.3, 0.9), course("spent", 0.005, 0.1)]


def test_trials_follow_the_promises_that_were_kept() -> None:
    counts = shared(COURSES, Rules(budget.CEILING, FLOOR, total=50))
    assert counts == [50 - FLOOR - 1, FLOOR + 1]


def test_tables_tell_both_ways_of_sharing_and_what_a_threshold_saves() -> None:
    last = table(COURSES, [25]).splitlines()[-1].strip("| ").split(" | ")
    assert float(last[1]) < float(last[2])
    assert last[3].startswith(f"{float(last[2]) - float(last[1]):+.3f} [")
    assert [int(cell) for cell in last[4:]] == [50 - FLOOR - 1, FLOOR + 1]
    lines = stops(COURSES).splitlines()
    assert lines[2].startswith(f"| 0 | {2 * budget.CEILING} | 0.500")
    assert lines[-1].startswith(f"| 0.01 | {budget.CEILING + FLOOR + 3} |")


def test_a_search_is_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "CEILING", 5)
    monkeypatch.setattr(budget, "SETTINGS", SamplerSettings("random", 2))
    file, problem = tmp_path / "folder" / "user.json", MadeUpProblem(8, 0, 0.5)
    first = searched(problem, 0, file)
    assert len(first.volumes) == len(first.gains) == 5
    assert first.volumes == sorted(first.volumes)
    file.write_text(file.read_text().replace(problem.name, "as kept"))
    assert searched(problem, 0, file).user == "as kept"
