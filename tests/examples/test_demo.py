"""The demo's own parts on generated users, and the whole demo where there is time."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from examples import demo, generate, interview
from examples.world import ATTRIBUTES
from tests.cluster.made_results import gain_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    folder = tmp_path_factory.mktemp("data")
    generate.write(folder, users=3, seed=0, population=1)
    return interview.histories(folder / "users")


def test_facts_read_from_histories_are_of_their_attribute(histories) -> None:
    for history in histories.values():
        facts = interview._facts(history)
        assert facts
        assert all(value in ATTRIBUTES[topic] for topic, value in facts.items())


def test_questions_are_new_to_both_users_and_their_truths_differ(histories) -> None:
    first, second = list(histories.values())[:2]
    truths = [interview._facts(first), interview._facts(second)]
    found = interview._questions([first, second], truths)
    assert len(found) == interview.QUESTION_COUNT
    assert len({topic for _, topic in found}) == len(found)
    for words, topic in found:
        assert truths[0][topic] != truths[1][topic]
        for history in (first, second):
            cut = round(interview.TRAINING_SHARE * len(history))
            assert words not in [record["query"] for record in history[:cut]]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("You live in Lisbon.", True),
        ("lisbon!", True),
        ("You like the Lisboners.", False),
        ("", False),
    ],
)
def test_an_answer_is_right_where_it_names_the_truth_as_a_word(answer: str, right: bool) -> None:
    assert ("✓" in interview._marked(answer, "Lisbon")) is right


def test_recall_is_added_over_users() -> None:
    measured = [
        {"anchor": {"recall": {"all": [1, 4, 0.2]}}, "winner": {"recall": {"all": [3, 4, 0.2]}}},
        {"anchor": {"recall": {}}, "winner": {"recall": {}}},
        {"anchor": {"recall": {"all": [0, 6, 0.3]}}, "winner": {"recall": {"all": [4, 6, 0.3]}}},
    ]
    assert demo._pooled({"users": measured}, "anchor", "all") == (1, 10, 0.5)
    assert demo._pooled({"users": measured}, "winner", "all") == (7, 10, 0.5)
    assert demo._pooled({"users": measured}, "winner", "inferred") == (0, 0, 0)


def test_strangers_recall_leaves_out_ones_own_and_what_was_not_measured() -> None:
    nothing = (None, None, None)
    loss = ((1.0, 2.0, None), (2.0, 1.0, 3.0), nothing)
    recall = ((0.9, 0.1, None), (0.2, 0.8, 0.3), nothing)
    gain = gain_of(("ann", "bob", "cat"), loss, recall)
    written = json.loads(json.dumps({"gain": asdict(gain)}))  # as results.json has it
    assert demo._strangers(written) == pytest.approx((0.1 + 0.2 + 0.3) / 3)
    bare = json.loads(json.dumps({"gain": asdict(gain_of(("ann",), ((1.0,),)))}))
    assert demo._strangers(bare) is None
    assert demo._strangers({"gain": None}) is None


def test_only_a_demos_folder_is_made_anew(tmp_path: Path) -> None:
    own, others = tmp_path / "demo", tmp_path / "others"
    demo._empty(own)
    (own / "run").mkdir()
    demo._empty(own)
    assert not (own / "run").exists()
    others.mkdir()
    (others / "thesis.txt").write_text("years of work")
    assert demo.main(["--out", str(others)]) == 2
    assert (others / "thesis.txt").read_text() == "years of work"


@pytest.mark.long
def test_the_whole_demo(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "demo/run/results.json").read_text())
    hits, asked, chance = demo._pooled(results, "winner", "all")
    assert hits / asked >= 0.5 > 2 * chance / asked
    assert "✓" in done.stdout
    report = re.search(r"The report: (.*report\.html)", done.stdout.replace("\n", ""))
    assert report is not None
    assert Path(report[1].strip()).is_file()
