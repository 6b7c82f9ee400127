"""The file of a run's results: there and back, private, whole or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.private import write_private
from cluster.results import Gain, load, save
from tests.cluster.made_results import DIGESTS, HOSTILE, results


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    made = results()
    save(made, tmp_path)
    assert load(tmp_path) == made


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_pieces_are_the_json_of_the_whole(tmp_path: Path, count: int) -> None:
    made = results(count)
    assert save(made, tmp_path).read_text() == json.dumps(made.to_json())


def test_the_file_is_its_owners_alone_and_nothing_is_left_aside(tmp_path: Path) -> None:
    path = save(results(), tmp_path)
    save(results(1), tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert len(load(tmp_path).users) == 1


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_private(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_results_are_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no results here\..*check the path"):
        load(tmp_path / "mistyped")
    (tmp_path / "key").touch()  # begun
    with pytest.raises(FileNotFoundError, match="--resume"):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["{", "[]", '{"users": []}'])
def test_damaged_results_are_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "results.json").write_text(damage)
    with pytest.raises(ValueError, match=r"results\.json"):
        load(tmp_path)


def test_a_missing_field_is_refused(tmp_path: Path) -> None:
    path = save(results(), tmp_path)
    content = json.loads(path.read_text())
    del content["users"][0]["anchor"]["loss_nats"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="loss_nats"):
        load(tmp_path)


def test_without_a_user_nothing_of_theirs_is_left(tmp_path: Path) -> None:
    made = results().without(HOSTILE)
    text = json.dumps(made.to_json())
    assert "alert" not in text
    assert DIGESTS[1] not in text
    assert made.gain is not None
    ann, _, last = DIGESTS
    assert made.gain.loss == {ann: {ann: 2.5}, last: {ann: 5.1, last: 5.0}}
    assert made.gain.recall == {ann: {ann: 0.6}, last: {ann: 0.1, last: 0.1}}
    assert len(results().without("<i>quiet</i>").left_out) == 0


def test_what_is_kept_of_gains_grows_with_what_was_tried_alone() -> None:
    def size(users: int) -> int:
        loss = {
            f"{i:016x}": {f"{(i + k) % users:016x}": 2.0 for k in range(5)} for i in range(users)
        }
        return len(json.dumps(replace(results(), gain=Gain(loss)).to_json()["gain"]))

    assert size(400) < 2.1 * size(200)
