"""Replaying the stopping rule on a handful of made-up records."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from benchmarks import stopping
from benchmarks.recorded_problem import Record
from benchmarks.stopping import Pool, by_sampler, in_random_order, pools, search
from search.samplers import Observation
from search.space import MemoryConfig
from search.stopping import StoppingRule

RATE = 1e-3
NEVER = StoppingRule(fewest=1000)
EAGER = StoppingRule(fewest=3, errors=0.0, chance=1.0)


def record(layers: int, rank: int, loss: float, rouge_l: float) -> Record:
    """Two epochs of injection, three steps each; three of tuning, five steps each."""
    tuning = (loss + 0.2, loss + 0.1, loss)
    return Record("ann", layers, rank, 0, loss, rouge_l, 21, (3.9, 3.8), tuning)


BASE = Record("ann", 0, 0, 0, 4.0, 0.1, 0, (), ())
RECORDS = [
    record(layers, rank, 3.0 + 0.1 * layers + 0.01 * rank, 0.3 - 0.02 * layers)
    for layers, rank in itertools.product(range(1, 8), (4, 8))
]


@pytest.fixture
def pool() -> Pool:
    (found,) = pools([(RATE, [BASE, *RECORDS])]).values()
    return found


def test_a_pool_holds_what_was_recorded_with_the_steps_of_each_epoch(pool: Pool) -> None:
    assert pool.base == (4.0, 0.1)
    assert len(pool.trials) == len(RECORDS)
    first = pool.trials[0]
    assert first.configuration == MemoryConfig((0,), 4, RATE)
    assert [point.steps for point in first.ended.curve] == [3, 6, 11, 16, 21]
    assert (first.ended.loss_nats, first.ended.rouge_l) == pytest.approx((3.14, 0.28))
    assert pool.corner == pytest.approx((3.78, 0.16))


def test_both_halves_make_the_whole(pool: Pool) -> None:
    tune, report = pool.half("tune"), pool.half("report")
    assert tune.trials
    assert report.trials
    assert {t.configuration for t in (*tune.trials, *report.trials)} == {
        t.configuration for t in pool.trials
    }
    assert len(tune.trials) + len(report.trials) == len(pool.trials)


def test_without_stopping_every_step_is_spent(pool: Pool) -> None:
    for rule in (None, NEVER):
        found = search(pool, in_random_order(pool, 0), rule, trials=10)
        assert (len(found.completed), found.stopped, found.steps) == (10, 0, 210)


def test_what_is_stopped_costs_its_steps_until_then_and_is_no_result(pool: Pool) -> None:
    order = {t.configuration: t for t in sorted(pool.trials, key=lambda t: t.ended.loss_nats)}
    best_first = list(order.values())

    def by_loss(seen: list[Observation]) -> stopping.Trial | None:
        return best_first[len(seen) - 1] if len(seen) <= len(best_first) else None

    found = search(pool, by_loss, EAGER, trials=9)
    # Three must have ended, and the last three are still under way: the first six run to their end.
    # A chance of 1 lets any doubt stop the rest, at their second checkpoint: after six steps.
    assert found.completed[:6] == tuple(best_first[:6])
    assert len(found.completed) + found.stopped == 9
    assert found.steps == 6 * 21 + 3 * 6
    assert pool.volume(found.completed) == pytest.approx(pool.volume(best_first[:9]))


def test_a_search_ends_with_its_steps_or_with_what_is_recorded(pool: Pool) -> None:
    by_steps = search(pool, in_random_order(pool, 1), None, steps=50)
    assert len(by_steps.completed) == 3
    assert len(search(pool, in_random_order(pool, 1), None, trials=99).completed) == len(RECORDS)


def test_the_whole_pool_is_all_there_is_and_its_winner_is_the_best(pool: Pool) -> None:
    assert pool.volume(pool.trials) == 1.0
    assert pool.volume(pool.trials[-2:]) < 1.0
    assert pool.winner(pool.trials) == pytest.approx((3.14, 0.28))
    assert pool.winner([]) == pool.base


def test_a_sampler_proposes_only_what_is_recorded_and_nothing_twice(pool: Pool) -> None:
    some = Pool(pool.base, pool.trials[::2])
    found = search(some, by_sampler(some, "random", 3, 6), None, trials=20)
    configs = [trial.configuration for trial in found.completed]
    assert len({*configs}) == len(configs) == len(some.trials)


def test_a_recording_becomes_a_line_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json
    from dataclasses import asdict

    lines = [json.dumps(asdict(one)) + "\n" for one in [BASE, *RECORDS]]
    (tmp_path / "records.jsonl").write_text("".join(lines))
    (tmp_path / "rate").write_text(repr(RATE))
    words = ["--records", str(tmp_path), "--trials", "7", "--seeds", "5", "--half", "all"]
    stopping.main([*words, "--fewest", "3", "1000"])
    header, rule, some, never = capsys.readouterr().out.splitlines()
    assert header.count("|") == rule.count("|") == some.count("|")
    assert "| 0.0% | 0.0% |" in never
    assert "+0.0000 ± 0.0000" in never
