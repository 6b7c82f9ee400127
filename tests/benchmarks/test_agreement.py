"""Two comparisons held against each other, on losses made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import agreement

USERS = range(8)


def losses(**means: float) -> dict[str, dict[str, float]]:
    """Of each method around its mean, with differences that vary a little between users."""
    return {
        name: {f"u{user}": mean + user / 10 + 0.01 * (user * (place + 1) % 8) for user in USERS}
        for place, (name, mean) in enumerate(means.items())
    }


def verdicts(first: Any, second: Any) -> dict[tuple[str, str], str]:
    return {pair.names: pair.verdict for pair in agreement.pairs_of(first, second, 0)}


def test_pairs_agree_disagree_or_stay_open() -> None:
    first = losses(a=1.0, b=1.5, c=2.0, d=2.02)
    second = losses(d=2.0, c=2.0, b=3.0, a=1.0)
    assert verdicts(first, second) == {
        ("a", "b"): "agrees",
        ("a", "c"): "agrees",
        ("a", "d"): "agrees",
        ("b", "c"): "disagrees",
        ("b", "d"): "disagrees",
        ("c", "d"): "open",
    }


def test_intervals_apart_are_told_though_both_agree() -> None:
    pair = agreement.pairs_of(losses(a=1.0, b=1.5), losses(a=1.0, b=4.0), 0)[0]
    assert (pair.verdict, pair.is_apart) == ("agrees", True)
    same = agreement.pairs_of(losses(a=1.0, b=1.5), losses(a=2.0, b=2.501), 0)[0]
    assert not same.is_apart
    text = agreement.told(losses(a=1.0, b=1.5), losses(a=1.0, b=4.0), 0)
    assert "of 1 pairs 1 agree, 0 disagree, 0 are open; intervals apart: 1" in text
    assert "- a less b: -0.495 [" in text
    assert "], then -2.995 [" in text


def stored(**settings: Any) -> dict[str, Any]:
    rows = [{"label": name, "values": {"loss": own}} for name, own in losses(a=1.0, b=2.0).items()]
    alike = {"data": "d", "seed": 0, "users": 8, "methods": ["a", "b"]}
    return {"rows": rows, "settings": {**alike, **settings}}


def test_it_reads_two_comparisons_and_refuses_what_cannot_be_held_against_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps(stored(base_fingerprint="of the others", commit="c")))
    two.write_text(json.dumps(stored(skip=8, methods=["b", "a"], base_fingerprint="new")))
    agreement.main([str(one), str(two)])
    assert "Kendall's tau of the two orders: 1.00; of 1 pairs 1 agree" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"same terms, got other \['data'\]"):
        agreement.check(stored(), stored(data="e", skip=8))
    agreement.check(stored(users=4, skip=8), stored())
    for overlapping in (stored(), stored(skip=7), stored(users=4)):
        with pytest.raises(ValueError, match="got some in both: rerun it with --skip 8 or more"):
            agreement.check(stored(), overlapping)
    with pytest.raises(ValueError, match=r"both compare, got \['a'\]"):
        agreement.pairs_of(losses(a=1.0), losses(a=1.0, b=2.0), 0)
