"""Replaying the stopping rule on a handful of made-up records."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import stopping
from benchmarks.recorded_problem import Record
from benchmarks.replayed import Pool, Trial, by_sampler, in_random_order, pools, search, values_of
from search.samplers import Observation
from search.space import MemoryConfig
from search.stopping import StoppingRule

RATE = 1e-3
NEVER = StoppingRule(fewest=1000)
EAGER = StoppingRule(fewest=3, worth=1e9)


def record(layers: int, rank: int, loss: float, rouge_l: float) -> Record:
    """Two epochs of injection, three steps each; three of tuning, five steps each."""
    tuning = (loss + 0.2, loss + 0.1, loss)
    return Record("ann", layers, rank, 0, loss, rouge_l, 21, (3.9, 3.8), tuning)


BASE = Record("ann", 0, 0, 0, 4.0, 0.1, 0, (), ())
RECORDS = [
    record(layers, rank, 3.0 + 0.1 * layers + 0.01 * rank, 0.3 - 0.02 * layers)
    for layers, rank in itertools.product(range(1, 8), (4, 8))
]


def volume(pool: Pool, trials: Sequence[Trial]) -> float:
    return pool.volume([values_of(trial) for trial in trials])


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

    def by_loss(seen: list[Observation]) -> Trial | None:
        return best_first[len(seen) - 1] if len(seen) <= len(best_first) else None

    found = search(pool, by_loss, EAGER, trials=9)
    # Three must have ended, and the last three are still under way: the first six run to their end.
    # Nothing is worth as much as is asked: the rest stop at their first checkpoint, after 3 steps.
    assert found.completed[:6] == best_first[:6]
    assert len(found.completed) + found.stopped == 9
    assert found.steps == 6 * 21 + 3 * 3
    assert volume(pool, found.completed) == pytest.approx(volume(pool, best_first[:9]))


def test_a_search_ends_with_its_steps_or_with_what_is_recorded(pool: Pool) -> None:
    by_steps = search(pool, in_random_order(pool, 1), None, steps=50)
    assert len(by_steps.completed) == 3
    assert len(search(pool, in_random_order(pool, 1), None, trials=99).completed) == len(RECORDS)


def test_what_a_search_had_come_to_before_is_read_off_it(pool: Pool) -> None:
    whole = search(pool, in_random_order(pool, 1), EAGER, trials=12)
    for steps in (20, 21, 22, 100):
        found = whole.within(steps)
        assert found.steps <= steps < whole.first(len(found.begun) + 1).steps
    assert whole.first(5) == search(pool, in_random_order(pool, 1), EAGER, trials=5)


def test_the_whole_pool_is_all_there_is_and_its_winner_is_the_best(pool: Pool) -> None:
    assert volume(pool, pool.trials) == 1.0
    assert volume(pool, pool.trials[-2:]) < 1.0
    assert pool.winner(pool.trials) == pytest.approx((3.14, 0.28))
    assert pool.winner([]) == pool.base


def test_trials_are_shaken_by_what_repeats_lie_apart() -> None:
    """Half the square of the difference of two is their variance."""
    again = replace(RECORDS[0], repeat=1, loss=RECORDS[0].loss + 0.1)
    (pool,) = pools([(RATE, [BASE, *RECORDS, again])]).values()
    assert pool.noise == pytest.approx((0.1 / 2**0.5, 0.0))
    assert len(pool.trials) == len(RECORDS)
    found = [pool.shaken(pool.trials, seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert [r for _, r in found[0]] == pytest.approx([t.ended.rouge_l for t in pool.trials])
    apart = [x - t.ended.loss_nats for (x, _), t in zip(found[0], pool.trials, strict=True)]
    assert 0.02 < np.std(apart) < 0.2


def test_at_most_all_steps_of_what_is_not_on_the_front_could_be_saved(pool: Pool) -> None:
    """One memory is better than all others in both: of 14, 13 train three steps of 21."""
    whole = search(pool, in_random_order(pool, 0), None, trials=99)
    assert stopping._most(pool, whole) == pytest.approx(1 - (21 + 13 * 3) / (14 * 21))


def test_who_foresees_is_told_the_last_loss_at_every_checkpoint(pool: Pool) -> None:
    for one, told in zip(pool.trials, pool.foreseen().trials, strict=True):
        assert {point.loss_nats for point in told.ended.curve} == {one.ended.loss_nats}
        assert [point[:3] for point in told.ended.curve] == [p[:3] for p in one.ended.curve]
        assert values_of(told) == values_of(one)


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
    assert [cell.strip() for cell in never.split("|")][3:6:2] == ["0.0%", "0.0%"]
    assert "+0.0000 ± 0.0000" in never
