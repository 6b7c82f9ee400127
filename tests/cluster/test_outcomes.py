"""Ended trials are counted by three words, whoever's they are."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from ray.util.metrics import Counter

from cluster import outcomes
from search.storage import State

TOLD = {"event": "told", "is_anchor": False}
ENDS: list[tuple[dict[str, Any], State]] = [
    ({"loss_nats": 2.0, "rouge_l": 0.1}, "completed"),
    ({"error": "ValueError in packer.py:1"}, "failed"),
    ({"stopped": "diverged at injection 1"}, "stopped"),
]


def test_every_end_is_one_of_the_states_of_a_trial() -> None:
    for end, outcome in ENDS:
        assert outcomes.outcome_of({**TOLD, "digest": "0123456789abcdef", **end}) == outcome
        assert outcome in get_args(State)


def test_what_is_counted_names_nobody_and_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[str, dict[str, str]]] = []

    def noting(counter: Counter, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        counted.append((counter.info["name"], dict(tags or {})))

    monkeypatch.setattr(Counter, "inc", noting)
    for user in range(50):
        for end, _ in ENDS:
            outcomes.count({**TOLD, "digest": f"{user:016x}", **end})
    assert len(counted) == 150
    series = {(name, *tags.items()) for name, tags in counted}
    assert series == {(outcomes.NAME, (outcomes.LABEL, outcome)) for _, outcome in ENDS}
