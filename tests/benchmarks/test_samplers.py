"""The comparison of samplers: who searches on whom, in which order, and once only."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.cohorts import (
    DEFAULT,
    GOAL,
    NAMES,
    Extent,
    contender,
    in_order,
    made_up,
    recorded,
)
from benchmarks.recorded_problem import Record, Table
from benchmarks.samplers import chosen, left, main, parser, run
from benchmarks.searches import searched
from search.samplers import make_sampler
from search.space import PAPER_LEARNING_RATE, SearchSpace

TWO = ["random", "tpe"]


def test_every_contender_is_one_that_can_search() -> None:
    for name in NAMES:
        one = contender(name, 200)
        assert one.name == name
        assert make_sampler(one.settings).name == one.settings.name
        assert one.trials == (60 if name == "optuna-gp" else 200)


def test_the_paper_draws_half_at_random_and_fixes_the_rate() -> None:
    schedule, paper = contender(GOAL, 200), contender("paper", 200)
    assert (schedule.settings.initial, schedule.settings.design) == (100, "random")
    assert (paper.settings.name, paper.settings.initial) == ("saas", 100)
    (problem,) = made_up(8, [GOAL], Extent(1, 1, 20)).problems
    assert schedule.space(problem) == problem.space
    assert paper.space(problem).learning_rates == (PAPER_LEARNING_RATE,)
    assert contender(DEFAULT, 200).settings.initial == 12


def test_pairs_stay_together_and_seeds_come_last() -> None:
    """Wherever it stops, at most one user and seed is without its pair."""
    cohorts = [made_up(8, TWO, Extent(2, 2, 20)), made_up(16, TWO, Extent(1, 1, 20))]
    order = [(s.problem.name[8:].replace("-related0", ""), s.contender.name, s.seed)
             for s in in_order(cohorts)]  # fmt: skip
    cells = [("L8-user0", 0), ("L8-user1", 0), ("L16-user0", 0), ("L8-user0", 1), ("L8-user1", 1)]
    assert order == [(user, name, seed) for user, seed in cells for name in TWO]


def test_what_two_cohorts_share_is_searched_once() -> None:
    first = made_up(8, TWO, Extent(2, 1, 20))
    second = made_up(8, ["tpe", "sobol"], Extent(1, 1, 20))
    assert len(in_order([first, second])) == 5


def test_no_two_cohorts_of_a_comparison_have_the_same_title() -> None:
    """Figures and drawings are kept by it; here both have the same users and seeds."""
    words = ["--out", "x", "--users", "3", "--seeds", "1", "--trials", "20"]
    titles = [cohort.title for cohort in chosen(parser().parse_args(words))]
    assert len({*titles}) == len(titles) == 5


def test_the_users_of_a_table_are_a_cohort(tmp_path: Path) -> None:
    space = SearchSpace(2, (8, 16), (1e-3,))
    records = [
        Record(user, bits, rank, 0, 3.0 - bits * rank / 100, bits / 10, 1, (), ())
        for user in ("aa", "bb")
        for bits, rank in [(0, 0), *((b, r) for b in (1, 2, 3) for r in space.ranks)]
    ]
    Table(1e-3, tuple(records)).save(tmp_path / "table.csv.gz")
    cohort = recorded(tmp_path / "table.csv.gz", ["random"], Extent(1000, 3, 20))
    assert [problem.name for problem in cohort.problems] == ["recorded-aa", "recorded-bb"]
    trace = searched(cohort.problems[0], cohort.contenders[0], 0, tmp_path)
    assert len(trace.true) == len(trace.sources) == space.size()  # and then it ends
    assert trace.volumes(cohort.problems[0])[-1] == pytest.approx(1)


def test_a_limit_stops_between_searches(tmp_path: Path) -> None:
    work = in_order([made_up(8, ["random"], Extent(3, 1, 10))])
    assert [one.name for one, _ in run(work, tmp_path, 1, 0.0)] == []
    assert [one.name for one, _ in run(work, tmp_path, 1, 1e-9)] == [work[0].name]
    said = left(work, tmp_path, 36.0)
    assert "0.01 CPU-hours" in said
    assert "2 of 3 searches are left" in said
    assert work[1].name in said
    assert {one.name for one, _ in run(work, tmp_path, 2, 1e9)} == {one.name for one in work[1:]}
    assert "all 3 searches are kept" in left(work, tmp_path, 36.0)


def test_the_whole_command_goes_on_where_it_was_and_asks_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path), "--layers", "8", "--users", "1", "--seeds", "1",
             "--trials", "20", "--processes", "1", "--contenders"]  # fmt: skip
    main([*words, "random"])
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("made-up*/*.json")}
    assert len(kept) == 1
    main([*words, *TWO])
    both = {file: file.stat().st_mtime_ns for file in tmp_path.glob("made-up*/*.json")}
    assert len(both) == 2
    assert both.items() > kept.items()
    capsys.readouterr()
    main([*words, *TWO])
    printed = capsys.readouterr().out
    assert "2 searches, 2 of them kept already" in printed
    assert {file: file.stat().st_mtime_ns for file in both} == both
    text = (tmp_path / "standings.md").read_text()
    assert text in printed
    assert "| tpe | " in text
    (figures,) = json.loads((tmp_path / "standings.json").read_text()).values()
    assert [one["contender"] for one in figures] == TWO
    assert all(0 < one["reached"][-1]["mean"] <= 1 for one in figures)
    assert len([*tmp_path.glob("*.svg")]) == 1


def test_what_can_not_be_compared_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in [
        (["--layers", "12"], "multiple of 8 layers"),
        (["--users", "0"], "at least 1, got 0"),
        (["--contenders", "best"], "choose from"),
        (["--recorded", str(tmp_path / "none.gz")], "none.gz"),
    ]:
        with pytest.raises(SystemExit):
            main(["--out", str(tmp_path), *words])
        assert said in capsys.readouterr().err


def test_who_is_ended_ends_the_processes_that_search(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--layers", "40", "--users", "1", "--seeds", "2",
             "--trials", "200", "--processes", "2", "--contenders", "gp"]  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.samplers", *words]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL) as process:
        try:
            children: list[psutil.Process] = []
            while len(_searching(children)) < 2:
                assert process.poll() is None
                time.sleep(0.1)
                children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM
            assert not psutil.wait_procs(children, timeout=60)[1]
        finally:
            process.kill()
            for child in children:
                if child.is_running():
                    child.kill()
    assert not [*tmp_path.glob("made-up*/*.json")]  # they were at work


def _searching(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of the pool; the other is multiprocessing's own."""
    return [process for process in processes if "spawn_main" in " ".join(process.cmdline())]
