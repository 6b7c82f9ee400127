"""LaMP's files: each task's questions and profiles as quizzes, and what is said of bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.choices import are_labels, choice_items
from models.history import Histories, split
from models.lamp import TASKS, read
from models.lines import DataError
from models.quiz import Quiz, write

TAGS = (
    "Which tag does this movie relate to among the following tags? Just answer with the tag name "
    "without further explanation. tags: [sci-fi, comedy, ...] description:"
)
NEWS = "Which category does this article relate to? categories: [travel, ...] article:"
RATE = "What is the score of the following review on a scale of 1 to 5? review:"
CITED = 'For an author who has written the paper with the title "A", which reference is related?'
SCORED: list[dict[str, Any]] = [
    {"id": "310", "text": "a dull review: of it", "score": "2"},
    {"id": "311", "text": "good", "score": 5},
]


def put(folder: Path, task: str, questions: object, golds: object) -> tuple[Path, Path]:
    """A split's two files."""
    files = folder / "dev_questions.json", folder / "dev_outputs.json"
    files[0].write_text(json.dumps(questions))
    files[1].write_text(json.dumps({"task": task, "golds": golds}))
    return files


def one(folder: Path, task: str, asked: str, output: object, profile: object) -> Quiz:
    """The quiz of a file with one question."""
    question = {"id": "31", "input": asked, "profile": profile}
    (found,) = read(*put(folder, task, [question], [{"id": "31", "output": output}]))
    return found


@pytest.mark.parametrize(
    ("task", "asked", "output", "item", "query", "response", "options"),
    [
        ("LaMP_1", CITED, "[2]", {"title": "B", "abstract": "We ask."},
         "Write the abstract of the paper with this title: B", "We ask.", 2),
        ("LaMP_2", f"{TAGS} a robot", "sci-fi", {"tag": "comedy", "description": "a clown"},
         f"{TAGS} a clown", "comedy", 15),
        ("LaMP_2", f"{NEWS} by sea. description: no", "travel",
         {"title": "T", "text": "on foot", "category": "sports"}, f"{NEWS} on foot", "sports", 15),
        ("LaMP_3", f"{RATE} fine", 4, SCORED[0], f"{RATE} a dull review: of it", "2", 5),
        ("LaMP_4", "Generate a headline for the following article: rain", "Wet",
         {"title": "Dry", "text": "sun"},
         "Generate a headline for the following article: sun", "Dry", None),
        ("LaMP_5", "Generate a title for the following abstract of a paper: we", "On us",
         {"title": "On me", "abstract": "I"},
         "Generate a title for the following abstract of a paper: I", "On me", None),
        ("LaMP_7", "Paraphrase the following tweet: hello", "hi .. all", {"text": "well .. yes"},
         None, "well .. yes", None),
    ],
)  # fmt: skip
def test_a_profile_is_asked_as_the_question_is(
    tmp_path: Path,
    task: str,
    asked: str,
    output: object,
    item: dict[str, str],
    query: str | None,
    response: str,
    options: int | None,
) -> None:
    found = one(tmp_path, task, asked, output, [{"id": "310", **item}])
    ((known,), (question,)) = found.history, found.questions
    assert found.user_id == known.user_id == question.user_id == "31"
    assert (known.query, known.response, known.choices) == (
        query,
        response,
        question.choices if task in ("LaMP_2", "LaMP_3") else None,
    )
    assert (question.query, question.response) == (asked, str(output))
    assert (question.choices and len(question.choices)) == options
    assert known.time < question.time


def test_every_task_but_that_of_e_mails_is_read(tmp_path: Path) -> None:
    assert set(TASKS) == {1, 2, 3, 4, 5, 7}
    with pytest.raises(DataError, match=r"outputs\.json: expected a task of LaMP_1, .* 'LaMP_6'"):
        one(tmp_path, "LaMP_6", "subject?", "x", [])


def test_files_split_by_time_are_put_in_order_without_what_is_asked(tmp_path: Path) -> None:
    def item(text: str, score: int, date: str) -> dict[str, object]:
        return {"id": text, "text": text, "score": score, "date": date}

    old, late, newer = (
        item("old", 1, "2009-12-1"),
        item("late", 2, "2010-2-3"),
        item("new", 3, "2010-11-9"),
    )
    questions = [
        {"id": 1, "user_id": "u", "input": f"{RATE} new", "profile": [late, old]},
        {"id": 2, "user_id": "u", "input": f"{RATE} newest", "profile": [newer, old, late]},
        {"id": 3, "user_id": "v", "input": f"{RATE} new", "profile": [late]},
    ]
    golds = [{"id": n, "output": "3"} for n in (3, 2, 1)]
    first, second = read(*put(tmp_path, "LaMP_3", questions, golds))
    assert (first.user_id, second.user_id) == ("u", "v")
    assert [i.response for i in first.history] == ["1", "2"]  # `new` is asked about
    assert [i.query for i in first.questions] == [f"{RATE} new", f"{RATE} newest"]
    assert [i.time for i in (*first.history, *first.questions)] == [0, 1, 2, 3]
    assert first.questions[0].session == second.questions[0].session
    assert first.history[1].session == second.history[0].session != first.history[0].session


def test_quizzes_become_data_that_is_split_by_document(tmp_path: Path) -> None:
    profile = [{"id": n, "text": f"review {n}", "score": n % 5 + (n > 0)} for n in range(30)]
    quiz = one(tmp_path, "LaMP_3", f"{RATE} fine", "4", profile)
    write([quiz], tmp_path / "data")
    histories = Histories.read(tmp_path / "data", tmp_path / "run")
    history = histories.load("31")
    assert history.interactions == (*quiz.history, *quiz.questions)
    assert len(choice_items(history.interactions)) == 30
    parts = split(history)
    assert parts.by_session
    assert parts.test[-1] == quiz.questions[0]
    assert are_labels(choice_items(history.interactions))
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "data").iterdir()} == {0o600}
    with pytest.raises(FileExistsError, match="new or empty folder"):
        write([quiz], tmp_path / "data")
    with pytest.raises(DataError, match="one quiz a user"):
        write([quiz, quiz], tmp_path / "again")


GOOD = {"id": "31", "input": f"{RATE} fine", "profile": SCORED}
GOLD = {"id": "31", "output": "4"}


@pytest.mark.parametrize(
    ("questions", "golds", "message"),
    [
        ({"31": GOOD}, [GOLD], r"questions\.json: expected a list of objects, got {'31'"),
        ([GOOD, "x"], [GOLD], r"questions\.json\[1\]: expected an object, got 'x'"),
        ([{**GOOD, "id": None}], [GOLD], r"questions\.json\[0\]: expected 'id' as text, got null"),
        ([{**GOOD, "id": "32"}], [GOLD], r"\[0\]: expected one output of id '32', got none in"),
        ([GOOD, GOOD], [GOLD], r"\[1\]: expected one output of id '31', got a second question"),
        ([GOOD], [GOLD, {"id": "9", "output": "1"}], r"each of 2 outputs of .* got none for 1"),
        ([], [], r"each of 0 outputs"),
        ([GOOD], [GOLD, GOLD], r"outputs\.json: golds\[1\]: expected one output of id '31'"),
        ([GOOD], {"31": "4"}, r"outputs\.json: golds: expected a list of objects"),
        ([GOOD], [{"id": "31"}], r"golds\[0\]: expected 'output' as text, got only the fields"),
        ([GOOD], [{**GOLD, "output": "6"}], r"\[0\]: expected an output among 1, .* 5, got '6'"),
        ([{**GOOD, "input": "rate it"}], [GOLD], r"\[0\]: expected 'review:' in 'input'"),
        ([{**GOOD, "profile": None}], [GOLD], r"\[0\]: profile: expected a list of objects"),
        ([{**GOOD, "profile": [SCORED[0], {"text": "x"}]}], [GOLD],
         r"\[0\]: profile\[1\]: expected 'score' as text"),
        ([{**GOOD, "profile": [{**SCORED[0], "date": "May"}]}], [GOLD],
         r"profile\[0\]: expected 'date' as year-month-day, got 'May'"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_with_its_place(
    tmp_path: Path, questions: object, golds: object, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(*put(tmp_path, "LaMP_3", questions, golds))


def test_files_that_are_no_json_or_of_another_kind_are_named(tmp_path: Path) -> None:
    questions, outputs = put(tmp_path, "LaMP_3", [GOOD], [GOLD])
    questions.write_text("[{")
    with pytest.raises(DataError, match=r"dev_questions\.json: expected JSON"):
        read(questions, outputs)
    outputs.write_text("[]")
    with pytest.raises(DataError, match=r"dev_outputs\.json: expected an object with 'task'"):
        read(questions, outputs)
    with pytest.raises(FileNotFoundError):
        read(questions, tmp_path / "none.json")
