"""The whole way on other roads: a population's file, PostgreSQL, a cluster by address, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import torch
from optuna.trial import TrialState
from peft import PeftModel
from torch.testing import assert_close

from cluster.folder import RunFolder
from cluster.forget import forget
from cluster.results import load
from models.base import Base
from models.registry import Registry
from search.storage import Trial, from_stored, open_storage
from tests.cluster import tiny_run
from tests.cluster.head import AUTHENTICATED, head
from tests.cluster.tiny_run import TRIALS, USERS, Driver
from tests.search.server import postgres
from tests.states import TOKENS, bank_logits


def folder_of(place: Path) -> Path:
    place.mkdir()
    return place


@pytest.mark.long
def test_a_population_from_a_file_and_exports_that_need_no_base_of_its_own(tmp_path: Path) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    others = (USERS[0], *(f"other {i}" for i in range(6)))
    population = tiny_run.write_data(folder_of(tmp_path / "others"), others)
    run = tmp_path / "run"
    words = tiny_run.command(data, base, run, population=population)
    said = Driver(words, tmp_path / "log").finish()
    assert f"population: from {population}" in said.replace("\n", "")
    found = load(run)
    assert found.population is not None
    assert found.population["users"] == 6  # without the one who is searched
    original, merged = (Base.load(folder, "cpu", "float32") for folder in (base, run / "base"))
    assert found.base.fingerprint == merged.fingerprint != original.fingerprint

    user = next(user.user_id for user in found.users if user.kind == "milp")
    export = [words[0], "-m", "milpa", "export", str(run), user, str(tmp_path / "adapter")]
    subprocess.run([*export, "--onto", "original"], cwd=tiny_run.ROOT, check=True, timeout=120)
    state = Registry(run / "registry").load(user, merged)
    adapted = PeftModel.from_pretrained(original.model, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert_close(adapted(TOKENS).logits, bank_logits(merged, state), rtol=0, atol=1e-4)
        plain = bank_logits(merged, None)
        assert (bank_logits(merged, state) - plain).abs().max() > 1e-2


def told_in(url: str) -> dict[tuple[str, int], Trial]:
    """Trials that were told, by study and number."""
    storage = open_storage(url)
    stored = {
        (study.study_name, trial.number): from_stored(trial)
        for study in storage.get_all_studies()
        for trial in storage.get_all_trials(study._study_id, states=[TrialState.COMPLETE])
    }
    storage.engine.dispose()
    return stored


@pytest.mark.long
def test_a_search_on_postgresql_is_killed_gone_on_with_and_forgotten(tmp_path: Path) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    run = tmp_path / "run"
    with postgres() as url:
        words = tiny_run.command(data, base, run, storage=url)
        driver = Driver(words, tmp_path / "log")
        driver.until(lambda: len(told_in(url)) >= 3)
        driver.kill()
        before = told_in(url)
        Driver([*words, "--resume"], tmp_path / "log").finish()
        after = told_in(url)
        assert {key: after[key] for key in before} == before
        assert len(after) == len(USERS) * (TRIALS + 1)
        assert len({(name, trial.config) for (name, _), trial in after.items()}) == len(after)
        assert not (run / "studies.db").exists()
        assert RunFolder(run).storage() == url
        assert {user.user_id for user in load(run).users} == set(USERS)

        assert "removed from the studies" in forget(run, USERS[0])
        assert len({name for name, _ in told_in(url)}) == len(USERS) - 1


@pytest.mark.long
def test_a_search_on_a_cluster_by_its_address(tmp_path: Path) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    with head({"slot": tiny_run.SLOTS}) as cluster:
        words = tiny_run.command(data, base, tmp_path / "run", address=cluster.address)
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            cwd=tiny_run.ROOT,
            env={**os.environ, **AUTHENTICATED},
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert {user.user_id for user in load(tmp_path / "run").users} == set(USERS)
        written = [file for file in cluster.folder.rglob("*") if file.is_file()]
        assert any(file.name.startswith("worker-") for file in written)
        for file in written:
            content = file.read_bytes()
            assert not any(user.encode() in content for user in USERS), file
            assert b"carrots" not in content, file


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_running_and_a_run_to_go_on_with(
    number: signal.Signals, tmp_path: Path
) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    run = tmp_path / "run"
    words = tiny_run.command(data, base, run)
    driver = Driver(words, tmp_path / "log")
    driver.until(lambda: len(tiny_run.completed(run)) >= 2)
    temporary = Path((run / "temporary").read_text())
    started = psutil.Process(driver.process.pid).children(recursive=True)
    assert temporary.is_dir()
    driver.process.send_signal(number)
    assert driver.process.wait(60) == 130, driver.log.read_text()
    said = " ".join(driver.log.read_text().split())
    assert f"go on with the same command, --out {run} --resume" in said
    assert "Traceback" not in said
    assert psutil.wait_procs(started, timeout=60)[1] == []
    assert not temporary.exists()
    before = dict(tiny_run.completed(run))
    Driver([*words, "--resume"], tmp_path / "log").finish()
    after = tiny_run.completed(run)
    assert {key: after[key] for key in before} == before
    assert len(after) == len(USERS) * (TRIALS + 1)
