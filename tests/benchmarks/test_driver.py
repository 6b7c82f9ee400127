"""The stand-in behaves as a workbench does, and the driver's figures are what samples say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.driver_figures import WHOLE, Sample, figures
from benchmarks.problem import MadeUpProblem
from benchmarks.stand_in import RELATED, STEPS, StandIn
from search.space import BASE_CONFIG, MemoryConfig

CONFIG = MemoryConfig((0, 3), 16, 1e-3)
LAYERS = 8
ROOT = Path(__file__).resolve().parents[2]


def test_a_task_takes_its_steps_and_ends_with_its_users_objectives() -> None:
    bench = StandIn({"ann": 4, "ben": 5}, LAYERS, 0.0)
    bench.add("trial", "ann", CONFIG, 0)
    bench.add("base", "ben", BASE_CONFIG, 0)
    for step in range(STEPS):
        assert bench.busy()
        assert bench.ready() == []
        events = bench.train()
        assert [event["epoch"] for _, event in events] == [step + 1] * 2
        assert not any(event["done"] for _, event in events)
    ends = dict(bench.score(bench.ready()))
    assert not bench.busy()
    ann, ben = (MadeUpProblem(LAYERS, number, RELATED) for number in (4, 5))
    assert (ends["trial"]["loss_nats"], ends["trial"]["rouge_l"]) == ann.observe(CONFIG)
    assert (ends["base"]["loss_nats"], ends["base"]["rouge_l"]) == ben.base


def test_a_winner_says_what_it_is_and_what_is_stopped_is_gone() -> None:
    bench = StandIn({"ann": 0}, LAYERS, 0.0)
    bench.add_winner("winner", "ann", CONFIG, 0, None)
    bench.add("stopped", "ann", CONFIG, 0)
    bench.stop("stopped")
    for _ in range(STEPS):
        bench.train()
    ((name, event),) = bench.score(bench.ready())
    assert (name, event["kind"], event["done"]) == ("winner", "lora", True)
    bench.add("again", "ann", CONFIG, 0)
    assert bench.give_up() == ["again"]
    assert not bench.busy()


def test_figures_of_the_first_and_the_last_thousand_trials() -> None:
    """2 CPU-ms a trial at first, 5 at last."""
    told = (0, 1000, 2000, 3000)
    spent = (1.0, 3.0, 6.0, 11.0)
    samples = [
        Sample(count, 10**7 * place, seconds, 2 * place, place)
        for place, (count, seconds) in enumerate(zip(told, spent, strict=True))
    ]
    held = [10**8, 11 * 10**7, 10**8]
    found = figures(samples, held, [0.001] * 90 + [0.2] * 10, 3000, 100.0)
    assert found["trials per second"] == 30
    assert found["driver and controllers, CPU ms a trial"] == pytest.approx(10 / 3, abs=0.05)
    assert found["the same, first 1000"] == 2
    assert found["the same, last 1000"] == 5
    assert found["suggest, 99 of 100 within ms"] == 200
    assert (found["largest controller MB"], found["processes, most"]) == (30, 6)
    assert found["controllers, askers, packers and trial processes, most"] == 3
    assert (found["shards"], found["driver grew after the first shard by %"]) == (3, 10.0)
    assert found["driver MB after the first shard"] == 100


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_small_search_is_measured_beside_tune_alone(tmp_path: Path) -> None:
    words = ["--users", "6", "--trials", "6", "--slots", "2", "--out", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-m", "benchmarks.driver", *words], check=True, cwd=ROOT)
    found = json.loads((tmp_path / "out" / "driver.json").read_text())
    assert found["trials"] == 36
    alone = found["no-op Tune, CPU ms a trial"]
    assert alone > 0
    above = found["CPU ms a trial above the no-op Tune run"]
    assert above == pytest.approx(found[WHOLE] - alone, abs=0.1)
    assert found["shards"] >= 1


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_small_search_is_killed_and_nothing_is_lost_or_proposed_otherwise(tmp_path: Path) -> None:
    words = ["--users", "6", "--trials", "8", "--slots", "2", "--sampler", "gp", "--kills", "4"]
    command = [sys.executable, "-m", "benchmarks.driver_kills", *words]
    subprocess.run([*command, "--out", str(tmp_path / "out")], check=True, cwd=ROOT)
    found = json.loads((tmp_path / "out" / "kills.json").read_text())
    assert sum(found["kills"].values()) >= 1
    assert found["values told before a kill, and others or none after"] == 0
    assert found["proposals that do not come out the same"] == 0
