"""Losses on either side of an edge add up to the whole, on a tiny comparison as it lies on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import beyond
from models.base import Base
from models.catalog import attach_all
from models.loss import row_losses
from tests.cluster import tiny_contest
from tests.states import a_state
from tests.tiny import tiny_base

EDGE = 12


def test_both_sides_of_an_edge_are_the_whole() -> None:
    base = tiny_base()
    asked = [("what about bread today?", "I like it much"), ("soup?", "no")]
    rows = [base.prompt.pair(*pair) for pair in asked]
    rows_of = {"ann": rows, "ben": rows[:1]}
    states = {"ann": a_state("ann"), "ben": None}
    whole = row_losses(base, [*rows, rows[0]], [states["ann"]] * 2 + [None], attach_all(base))
    for edge in (0, EDGE, 1000):
        found = beyond.parts(base, rows_of, states, edge)
        assert sum(found["ann"].before + found["ann"].beyond) == pytest.approx(
            sum(whole[0] + whole[1]), abs=1e-4
        )
        counted = sum(max(0, min(edge, len(r.tokens)) - r.predict_from) for r in rows)
        assert found["ann"].before[1] == counted
    assert beyond.parts(base, rows_of, states, 0)["ben"].means[0] is None
    assert beyond.parts(base, rows_of, states, 1000)["ben"].means == (
        pytest.approx(whole[2][0] / whole[2][1], abs=1e-5),
        None,
    )


def test_a_comparisons_states_are_read_as_it_left_them(tmp_path: Path) -> None:
    arena = tiny_contest.begun(tmp_path, tiny_contest.terms(tmp_path, ("none", "lora-all")))
    tiny_contest.tried(arena)
    tiny_contest.tested(arena)
    found = beyond.measured(arena.folder, EDGE, ["lora-all"])
    assert set(found) == {beyond.AS_GIVEN, beyond.SHARED, "lora-all"}
    assert found[beyond.AS_GIVEN] == found[beyond.SHARED]  # too few others to learn from
    text = beyond.table(found, EDGE)
    assert text.startswith(f"{sum(u.beyond[1] for u in found['lora-all'].values())} of ")
    assert "| the shared base | " in text
    assert Base.load(tmp_path / "base", "cpu").context > EDGE
