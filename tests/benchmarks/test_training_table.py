"""The bill is right: phases sum to the whole, ratios and differences are of the same trials."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.meter import Cost
from benchmarks.training_table import PHASES, Measured, profile, table

OURS_COST = Cost(
    wall_seconds=20.0,
    cpu_seconds=30.0,
    ready_cpu_seconds=12.0,
    peak_bytes=2 * 10**9,
    by_process={},
    later_by_process={
        "ray::Packer": 6.0,
        "ray::milpa": 7.0,
        "ray::Trial": 3.0,
        "ray::Asker": 1.5,
        "raylet": 0.5,
    },
)
THEIR_COST = Cost(60.0, 100.0, 10.0, 3 * 10**9, {})


def trial(person: int, loss: float, **others: Any) -> dict[str, Any]:
    planned = {"person": person, "layers": [1], "rank": 8, "learning_rate": 1e-3, "seed": 0}
    return {"trial": planned, "loss_nats": loss, "rouge_l": 0.5, "steps": 20, **others}


OURS = [trial(0, 2.0), trial(1, 3.0)]
SPENT = {"start": 4.0, "load": 1.0, "train": 20.0, "validate": 2.0, "score": 5.0}
THEIRS = [trial(1, 3.25, cpu_seconds=SPENT), trial(0, 2.0, cpu_seconds=SPENT)]


def ours(dtype: str = "float32") -> Measured:
    spent = {"start": 3.0, "load": 2.0, "train": 8.0, "score": 4.0}
    found = {"trials": OURS, "cpu_seconds": spent, "busy": 0.96}
    return Measured.of_ours("chat", dtype, OURS_COST, found)


def theirs(trials: list[dict[str, Any]] = THEIRS) -> Measured:
    return Measured.of_theirs("chat", "float32", "fresh", THEIR_COST, {"trials": trials}, OURS)


def test_phases_sum_to_the_whole() -> None:
    expected = {"start": 10.0, "load": 2.0, "train": 8.0, "score": 4.0, "bookkeeping": 6.0}
    assert dict(ours().phases) == expected
    assert dict(theirs().phases) == {
        "start": 18.0,
        "load": 2.0,
        "train": 40.0,
        "score": 10.0,
        "bookkeeping": 30.0,
    }
    assert set(expected) == set(PHASES)


def test_losses_are_compared_trial_by_trial() -> None:
    assert theirs().loss_apart == 0.25
    assert theirs().rouge_apart == 0.0
    lost = [trial(0, 2.0, cpu_seconds=SPENT), trial(1, math.nan, cpu_seconds=SPENT)]
    assert theirs(lost).loss_apart == math.inf


def test_other_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="the same trials"):
        theirs(THEIRS[:1])


def test_the_table_says_how_many_times_more_is_done() -> None:
    text = table([ours(), theirs(), ours("bfloat16")])
    row = next(line for line in text.splitlines() if "fresh |" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    head = [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]
    shown = dict(zip(head, cells, strict=True))
    assert shown["trials/h"] == "120"
    assert shown["CPU-s/trial"] == "50.00"
    assert shown["x CPU"] == "3.33"
    assert shown["x wall"] == "3.00"
    assert shown["loss apart"] == "2.5e-01"
    assert "chat: Milpa in bfloat16 against float32: 1.00 times" in text
    assert "3.33 times the trials per CPU-second of Tune + PEFT, fresh" in text


def test_the_profile_leaves_out_the_start_and_tells_who_spent_the_rest() -> None:
    text = profile(ours())
    assert "18 CPU-seconds after the start: train 44.4%, score 22.2%, ask 8.3%" in text
    # 18 - 8 - 4 - 1.5: of it the trials' 3, and 1 that the packer spent on neither.
    assert "outside these 25.0% (ray::Trial 16.7%, ray::Packer itself 5.6%, raylet 2.8%)" in text
    assert "the packer waited 4.0% of its time" in text
