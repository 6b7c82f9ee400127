"""The whole way on a real embedded Ray: its driver, its packer and its controller killed."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from pathlib import Path

import psutil
import pytest

from cluster.folder import RunFolder
from cluster.forget import forget
from cluster.results import load
from models.history import user_digest
from models.registry import Registry
from tests.cluster import tiny_run
from tests.cluster.tiny_run import TRIALS, USERS, Driver

ASKERS, PACKERS, CONTROLLERS, SPARE = 1, 1, 2, 1


class Watched:
    """What was seen while a search was going on."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.most_workers = 0
        self.trials_seen = 0
        self.trials_with_torch = 0
        self.titles: set[str] = set()

    def look(self) -> None:
        """Once over all worker processes."""
        workers = self.driver.workers()
        self.most_workers = max(self.most_workers, len(workers))
        for worker in workers:
            self.titles.add(tiny_run.title_of(worker))
            if tiny_run.is_trial(worker):
                self.trials_seen += 1
                self.trials_with_torch += _holds_torch(worker)


def _holds_torch(process: psutil.Process) -> bool:
    try:
        return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return False


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    tiny_run.write_data(folder, (*USERS, "too short"), pairs=32)
    lines = (folder / "data.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "data.jsonl").write_text("".join(lines[:-20]), encoding="utf-8")
    tiny_run.write_base(folder)
    return folder


@pytest.fixture(scope="module")
def killed(place: Path) -> tuple[Path, Watched, dict[tuple[str, int], dict[str, object]]]:
    """A run whose driver was killed in the middle: its folder and what it had stored."""
    run = place / "run"
    words = tiny_run.command(place / "data.jsonl", place / "base", run)
    driver = Driver(words, place / "first.log")
    watched = Watched(driver)

    def enough() -> bool:
        watched.look()
        return len(tiny_run.completed(run)) >= 4

    driver.until(enough)
    driver.kill()
    return run, watched, dict(tiny_run.completed(run))


@pytest.fixture(scope="module")
def run(
    place: Path, killed: tuple[Path, Watched, dict[tuple[str, int], dict[str, object]]]
) -> Path:
    """The same run, gone on with to its end, over the deaths of its packer and its controller."""
    folder, _, before = killed
    words = tiny_run.command(place / "data.jsonl", place / "base", folder)
    driver = Driver([*words, "--resume"], place / "second.log")
    # What the killed driver left behind may tell one more trial, so its count alone says nothing.
    driver.until(lambda: any(map(tiny_run.is_packer, driver.workers())))
    driver.until(lambda: len(tiny_run.completed(folder)) > len(before))
    (packer,) = filter(tiny_run.is_packer, driver.workers())
    packer.kill()
    known = len(tiny_run.completed(folder))
    driver.until(lambda: len(tiny_run.completed(folder)) > known)
    (controller,) = filter(tiny_run.is_controller, driver.workers())
    controller.kill()
    driver.finish()
    return folder


def test_a_kill_loses_no_finished_trial_and_repeats_none(
    run: Path, killed: tuple[Path, Watched, dict[tuple[str, int], dict[str, object]]]
) -> None:
    before, after = killed[2], tiny_run.completed(run)
    assert len(before) >= 4
    for key, trial in before.items():
        assert after[key] == trial
    begun = Counter(tiny_run.names_in_log(run, "begins"))
    assert all(begun[tiny_run.name_of(trial)] == 1 for trial in before.values())


def test_every_user_has_an_anchor_and_all_trials_each_once(run: Path) -> None:
    trials = tiny_run.trials_of(run)
    per_user = Counter(trial["study_name"] for trial in trials)
    assert sorted(per_user.values()) == [TRIALS + 1] * len(USERS)
    assert all(trial["state"] == "COMPLETE" for trial in trials)
    assert all("rank" not in trial["configuration"] for trial in trials if trial["number"] == 0)
    different = {(trial["study_name"], trial["configuration"]) for trial in trials}
    assert len(different) == len(trials)


def test_no_more_processes_than_slots_askers_packers_and_controllers(
    run: Path, killed: tuple[Path, Watched, object]
) -> None:
    most = tiny_run.SLOTS + ASKERS + PACKERS + CONTROLLERS + SPARE
    assert 0 < killed[1].most_workers <= most


def test_a_trial_process_holds_no_torch(killed: tuple[Path, Watched, object]) -> None:
    assert killed[1].trials_seen
    assert not killed[1].trials_with_torch


def test_each_task_is_named_by_user_and_configuration(
    run: Path, killed: tuple[Path, Watched, object]
) -> None:
    key = bytes.fromhex((run / "key").read_text())
    digests = {user_digest(key, user) for user in USERS}
    named = {title.removeprefix("ray::") for title in killed[1].titles if "milpa/" in title}
    assert named
    assert {name.split("/")[1] for name in named} <= digests
    assert all(name.split("/")[2].startswith(("L", "base", "winner")) for name in named)


def test_tune_and_logs_hold_no_user_ids_and_no_text(place: Path, run: Path) -> None:
    shown = [*run.glob("*.log"), *run.rglob("ray/**/*")]
    for file in (f for f in shown if f.is_file()):
        content = file.read_bytes()
        assert not any(user.encode() in content for user in USERS), file
        assert b"carrots" not in content, file


def test_the_run_is_its_owners_alone_and_leaves_nothing_behind(run: Path) -> None:
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert not (run / "ray").exists()
    assert not (run / "temporary").exists()


def test_results_hold_every_user_and_who_was_left_out(run: Path) -> None:
    found = load(run)
    assert {user.user_id for user in found.users} == set(USERS)
    assert [user.user_id for user in found.left_out] == ["too short"]
    assert all(user.by_session and user.pairs == 32 for user in found.users)
    assert all(user.winner.loss_nats <= user.anchor.loss_nats for user in found.users)
    assert found.gain is not None
    assert len(found.gain.loss) == len(USERS)
    assert (run / "report.html").stat().st_size > 0
    assert found.occupancy is not None
    assert 0 < found.occupancy <= 1


def test_everybody_is_published(run: Path) -> None:
    registry = Registry(run / "registry")
    assert set(registry.users()) == {*USERS, "too short"}
    assert registry.current("too short").kind == "base"
    kinds = {user.user_id: user.kind for user in load(run).users}
    assert {user: registry.current(user).kind for user in USERS} == kinds


def test_forgetting_a_user_leaves_no_trace_of_id_or_digest(run: Path) -> None:
    user = USERS[0]
    digest = user_digest(RunFolder(run).key(), user)
    assert any(digest in name for name in tiny_run.names_in_log(run, "ended"))
    assert forget(run, user)
    assert user not in Registry(run / "registry").users()
    assert len({trial["study_name"] for trial in tiny_run.trials_of(run)}) == len(USERS) - 1
    for folder, _, files in os.walk(run):
        for name in files:
            content = (Path(folder) / name).read_bytes()
            assert user.encode() not in content, name
            assert json.dumps(user)[1:-1].encode() not in content, name
            assert digest not in name
            assert digest.encode() not in content, name
    with pytest.raises(ValueError, match="does not hold"):
        forget(run, user)
