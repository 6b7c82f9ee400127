"""Units of a comparison that fail, are killed, or whose files are damaged, without Ray."""

from __future__ import annotations

import json
import multiprocessing
import os
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.arena import ArenaSettings
from cluster.station import Broken, Station, done
from cluster.unit import Unit
from models.registry import Registry
from tests.cluster import tiny_contest
from tests.cluster.frail import OUTLIVED
from tests.cluster.made_methods import Faulty, Sharing, better, install
from tests.cluster.tiny_contest import USERS
from tests.devices import Failing


@pytest.fixture(autouse=True)
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


@pytest.mark.parametrize("what", ["tensors", "outcome"])
def test_a_damaged_shared_part_breaks_the_unit_off_and_is_tried_again_once_mended(
    tmp_path: Path, what: str
) -> None:
    terms = tiny_contest.terms(tmp_path, ("none", "sharing"), trials=1, seeds=1)
    arena = tiny_contest.begun(tmp_path, terms)
    done(arena, Unit("bare"))
    trial = Unit("trial", "sharing")
    done(arena, trial)
    before = arena.units.read(trial)["users"]
    (arena.units.folder / f"{trial.name}.json").unlink()  # as if it had been killed just before
    unit = next(each["unit"] for each in arena.units.every() if each["unit"]["kind"] == "shared")
    outcome = arena.units.folder / f"{Unit(**unit).name}.json"
    (tensors,) = (arena.folder.path / "shared").glob("*/tensors.safetensors")
    file = tensors if what == "tensors" else outcome
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"?")
    settings = ArenaSettings(arena.folder.path, terms.base, terms, "cpu", 1)
    station = Station(settings, str(tmp_path / "station-0.log"))
    with pytest.raises(Broken, match=f"what sharing shares can't be read: .*{file.name}") as broken:
        station.do(trial)
    assert f"remove {outcome}, and it is learned again" in str(broken.value)
    assert trial not in arena.units
    file.write_bytes(whole)
    station.do(trial)
    assert arena.units.read(trial)["users"] == before
    assert len(Sharing.learned) == 1
    # Or what was said is done: it is learned again, and the damaged one is replaced.
    (arena.units.folder / f"{trial.name}.json").unlink()
    file.write_bytes(whole[:-1] + b"?")
    outcome.unlink()
    station.do(trial)
    assert arena.units.read(trial)["users"] == before
    assert len(Sharing.learned) == 2
    assert tensors.read_bytes() == (whole if file == tensors else tensors.read_bytes())


def test_a_fault_ends_its_unit_without_a_word_of_the_user(tmp_path: Path) -> None:
    terms = tiny_contest.terms(tmp_path, ("none", "faulty"))
    arena = tiny_contest.begun(tmp_path, terms)
    done(arena, Unit("bare"))
    log = tmp_path / "station-0.log"
    station = Station(ArenaSettings(arena.folder.path, terms.base, terms, "cpu", 1), str(log))
    with pytest.raises(Broken, match=r"KeyError in made_methods\.py") as broken:
        station.do(Unit("trial", "faulty"))
    response = Faulty.read  # nothing was read
    assert response == []
    for text in (str(broken.value), log.read_text()):
        assert "I like" not in text
        assert not any(user in text for user in USERS)
    assert Unit("trial", "faulty") not in arena.units


def test_a_process_ends_with_its_device_and_its_log_says_why(tmp_path: Path) -> None:
    terms = tiny_contest.terms(tmp_path, ("none",))
    arena = tiny_contest.begun(tmp_path, terms)
    arena.close()
    log = tmp_path / "station-0.log"
    settings = ArenaSettings(arena.folder.path, terms.base, terms, "cpu", 1)
    process = multiprocessing.get_context("spawn").Process(target=outlive, args=(settings, log))
    process.start()
    process.join()
    assert process.exitcode == 1
    assert log.read_text().rstrip().endswith("this process ends, for another to begin")
    assert Unit("bare") not in arena.units


def outlive(settings: ArenaSettings, log: Path) -> None:
    """Ends this process with `OUTLIVED` if a unit on a device that fails does not end it."""
    station = Station(settings, str(log))
    station.fingerprint()
    with Failing(), suppress(Broken):
        station.do(Unit("bare"))
    os._exit(OUTLIVED)


def test_the_same_unit_in_another_process_is_the_same(tmp_path: Path) -> None:
    terms = tiny_contest.terms(tmp_path, ("none", "milp"), trials=2, seeds=1)
    arena = tiny_contest.begun(tmp_path, terms)
    done(arena, Unit("bare"))
    unit = Unit("trial", "milp")
    done(arena, unit)
    first = arena.units.read(unit)["users"]
    (arena.units.folder / f"{unit.name}.json").unlink()
    done(arena, unit)
    assert arena.units.read(unit)["users"] == first


def test_a_unit_that_was_killed_before_its_outcome_was_kept_is_done_again_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better(monkeypatch)
    terms = tiny_contest.terms(tmp_path, ("none", "milp", "sharing"), trials=1, seeds=1)
    arena = tiny_contest.begun(tmp_path, terms)
    tiny_contest.tried(arena)
    for method in ("milp", "sharing"):
        unit, registry = Unit("final", method), Registry(tmp_path / "out" / "registries" / method)
        with monkeypatch.context() as patch:
            patch.setattr(type(arena.units), "write", _killed)
            with pytest.raises(KeyboardInterrupt):
                done(arena, unit)
        assert unit not in arena.units
        digests = [registry.current(user).digest for user in USERS]  # its states are there already
        done(arena, unit)
        assert [registry.current(user).digest for user in USERS] == digests
        outcome = arena.units.read(unit)
        for user in arena.users:
            folder = registry.current(user.user_id).folder
            size = sum(file.stat().st_size for file in folder.iterdir())
            assert outcome["stored_bytes"][user.digest] == size


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_outcome_is_named(tmp_path: Path) -> None:
    arena = tiny_contest.begun(tmp_path, tiny_contest.terms(tmp_path))
    done(arena, Unit("bare"))
    file = arena.units.folder / f"{Unit('bare').name}.json"
    other = json.dumps({"unit": {"kind": "bare", "number": 9}})
    for damaged in ("{", "[]", "{}", '{"unit": {"sort": "bare"}}', other):
        file.write_text(damaged)
        named = f"{file.name}: .* remove the file, and it is done again"
        with pytest.raises(ValueError, match=named):
            arena.units.read(Unit("bare"))
        with pytest.raises(ValueError, match=named):
            arena.units.every()
