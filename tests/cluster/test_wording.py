"""Numbers and names as they are printed."""

from __future__ import annotations

import pytest

from cluster import wording
from search.space import BASE_CONFIG, MemoryConfig


def test_numbers() -> None:
    assert wording.loss(3.69949) == "3.699"
    assert wording.percent(0.1249) == "12.5"
    assert wording.change(-0.0231, "loss") == "-0.023"
    assert wording.change(0.014, "percent") == "+1.4"
    assert [wording.loss(None), wording.percent(None)] == [wording.NOTHING] * 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (9999, "9,999"), (12_340, "12.3 K"), (538_000, "538 K"), (1_450_000, "1.45 M")],
)
def test_counts(value: float, text: str) -> None:
    assert wording.count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(48, "48 s"), (100, "2 min"), (720, "12 min"), (11_100, "3 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


def test_a_change_is_good_or_bad_by_its_direction() -> None:
    assert wording.verdict(-0.1, less_is_better=True) == "good"
    assert wording.verdict(-0.1) == "bad"
    assert wording.verdict(0.1) == "good"
    assert wording.verdict(0.0) == ""


def test_a_configuration_in_words() -> None:
    dash = "\N{EN DASH}"
    shown = wording.describe(MemoryConfig((0, 1, 2, 7), 16, 5.62e-4))
    assert shown == f"layers 0{dash}2, 7 · rank 16 · rate 5.6e-4"
    assert wording.describe(MemoryConfig((3,), 8, 1e-2)).startswith("layer 3 ")
    assert wording.describe(BASE_CONFIG) == "the base itself"


def test_a_name_is_short_and_moves_no_cursor() -> None:
    assert wording.short("x" * 1000, 10) == "x" * 9 + "…"
    assert wording.short("a\nb\u202ec\x1b[2J", 20) == "a\ufffdb\ufffdc\ufffd[2J"
    assert wording.short("größe/用户.", 20) == "größe/用户."
