"""What a search tells Prometheus: how many trials ended, and how.

Ray's own `ray_tasks` would say it by the names of tasks, of which there are as many as users times
trials: a series for each, kept for as long as the cluster lives. Here there are three.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ray.util.metrics import Counter

from search.storage import State

NAME, LABEL = "milpa_trials", "outcome"  # Ray makes `ray_milpa_trials_total` of it


def outcome_of(event: Mapping[str, Any]) -> State:
    """How the trial of a `told` event ended."""
    if "error" in event:
        return "failed"
    return "stopped" if "stopped" in event else "completed"


def count(event: Mapping[str, Any]) -> None:
    """Counts a `told` event in this process; Prometheus adds the processes up."""
    _counter().inc(tags={LABEL: outcome_of(event)})


@cache
def _counter() -> Counter:
    return Counter(NAME, "Trials that ended, by how they did.", tag_keys=(LABEL,))
