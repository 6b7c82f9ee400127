"""Memories against history length: the cut, the table, the plots, and all of it on a tiny base."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import history_length
from benchmarks.history_figures import SHARES, Measurement, changes, figures, table
from benchmarks.history_length import newest
from models.catalog import PERSONALIZERS
from models.gain import paired_interval
from models.history import Histories, split
from tests.cluster import tiny_run
from tests.tiny import tiny_interactions

LOSSES = {0: (3.0, 2.9, 2.7, 2.6), 1: (4.0, 4.1, 3.6, 3.2), 2: (5.0, 4.9, 4.9, 4.5)}


def made(recall: float | None) -> list[Measurement]:
    found = []
    for user, losses in LOSSES.items():
        found.append(Measurement(user, "base", 0.0, 0, losses[0], 0.1, recall))
        found += [
            Measurement(user, "milp", share, round(40 * share), loss, 0.2, recall)
            for share, loss in zip(SHARES, losses, strict=True)
        ]
    return found


def test_the_newest_part_is_the_end_of_the_training_part() -> None:
    train = tiny_interactions("ann", 22)
    assert [item.time for item in newest(train, 0.25)] == [16, 17, 18, 19, 20, 21]
    assert [len(newest(train, share)) for share in SHARES] == [6, 11, 17, 22]
    assert newest(train, 1.0) == tuple(train)


def test_the_table_tells_differences_within_users() -> None:
    differences = changes(made(None), "milp", 0.5)
    assert differences == pytest.approx([-0.1, 0.1, -0.1])
    found = paired_interval(differences, 3)
    text = table(made(None), 3)
    shown = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    assert f"| milp | 50% | 20 | 3.967 | {shown} | 20.0 | – |" in text  # noqa: RUF001
    assert "| base |  |  | 4.000 |  | 10.0 | – |" in text  # noqa: RUF001
    assert "of 3 users" in text


def test_plots_hold_a_line_for_each_method_and_recall_where_there_are_facts() -> None:
    assert set(figures(made(None), 0)) == {"loss"}
    drawn = figures(made(0.5), 0)
    assert set(drawn) == {"loss", "recall"}
    for image in drawn.values():
        root = ET.fromstring(image)
        lines = [part for part in root if part.tag.endswith("polyline")]
        assert [len(str(line.get("points")).split()) for line in lines] == [4, 4]
        words = {part.text for part in root if part.tag.endswith("text")}
        assert {"25%", "50%", "75%", "100%", "base", "milp"} <= words
        for line in lines:  # nothing is drawn off the page
            for point in str(line.get("points")).split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= 860
                assert 0 <= y <= 460


def test_users_are_measured_at_every_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    out = tmp_path / "out"
    words = ["--data", str(data), "--base", str(base), "--out", str(out), "--users", "2"]
    words += ["--rank", "4", "--learning-rate", "0.005", "--items", "1", "--epochs", "2"]
    history_length.main([*words, "--methods", "milp", "none"])
    printed = capsys.readouterr().out
    found = [Measurement(**row) for row in json.loads((out / "history_length.json").read_text())]
    assert len(found) == 2 * (1 + 2 * len(SHARES))
    sizes = {len(split(Histories.open(out / "data").load(user)).train) for user in tiny_run.USERS}
    whole = {each.read for each in found if each.share == 1.0}
    assert whole == sizes
    assert changes(found, "none", 0.5) == pytest.approx([0, 0], abs=1e-5)
    learned = [changes(found, "milp", share) for share in SHARES]
    assert all(change < -0.1 for change in learned[-1])
    assert len({round(change, 4) for row in learned for change in row}) > 4
    assert (out / "history_length.md").read_text() in printed
    assert (out / "history_length_loss.svg").is_file()
    for user in tiny_run.USERS:
        assert user not in printed
        assert json.dumps(user) not in (out / "history_length.json").read_text()
    assert (out / "history_length.json").stat().st_mode & 0o077 == 0


def test_a_method_that_there_is_none_of_is_refused(tmp_path: Path) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    words = ["--data", str(data), "--base", str(base), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="--methods: expected one of"):
        history_length.main([*words, "--methods", "magic"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["prompt-tuning-shared", "e2p", "uelp", "lpm", "pplug+rag"])
def test_a_method_with_a_shared_part_is_refused_with_those_that_can_be_given(
    tmp_path: Path, name: str
) -> None:
    base, words = tiny_run.write_base(tmp_path), ["--data", "nowhere", "--base"]
    named = re.escape(f"share nothing between users, got '{name}'")
    with pytest.raises(SystemExit, match=named) as refused:
        history_length.main([*words, str(base), "--out", str(tmp_path / "out"), "--methods", name])
    given = set(str(refused.value).partition("give some of ")[2].split(", "))
    sharing = {"prompt-tuning-shared", "e2p", "uelp", "uelp-cross", "lpm", "pplug", "pplug+rag"}
    assert given == set(PERSONALIZERS) - sharing


def test_by_default_a_memory_stands_beside_retrieval() -> None:
    words = ["--data", "data", "--base", "base", "--out", "out"]
    assert history_length._given(words).methods == ["milp", "rag"]
