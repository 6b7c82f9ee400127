"""PersonaMem's files: conversations as histories, questions with options, and bad files."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from models.choices import are_labels
from models.history import Histories
from models.lines import DataError
from models.persona_mem import COLUMNS, read
from models.quiz import write

CONTEXT = [
    {"role": "system", "content": "Current user persona: Kim, a baker"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "I like rye."},
    {"role": "user", "content": "What shall I bake?"},
    {"role": "assistant", "content": "Bread."},
    {"role": "assistant", "content": ""},
    {"role": "system", "content": "Current user persona: Kim, a baker"},
    {"role": "user", "content": "I went off rye."},
    {"role": "assistant", "content": "Why?"},
]
OPTIONS = ['(a) Rye, it\'s "yours".', "(b) Wheat\nthen.", "(c) Oats."]
ROW = {
    "persona_id": "3",
    "question_id": "q1",
    "question_type": "recall",
    "topic": "food",
    "user_question_or_message": "Which flour?",
    "correct_answer": "(b)",
    "all_options": str(OPTIONS),
    "shared_context_id": "c1",
    "end_index_in_shared_context": "9",
}


def put(folder: Path, *rows: dict[str, str]) -> tuple[Path, Path]:
    """The two files of a size."""
    files = folder / "questions_32k.csv", folder / "shared_contexts_32k.jsonl"
    with files[0].open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROW))
        writer.writeheader()
        writer.writerows(rows)
    files[1].write_text(json.dumps({"c1": CONTEXT}) + "\n" + json.dumps({"c2": CONTEXT[:4]}) + "\n")
    return files


def test_a_user_is_a_persona_at_a_point_of_a_conversation(tmp_path: Path) -> None:
    early = {**ROW, "question_id": "q2", "end_index_in_shared_context": "5"}
    more = {**ROW, "question_id": "q3", "correct_answer": "(c)"}
    counts: Counter[str] = Counter()
    whole, half = read(*put(tmp_path, ROW, early, more), counts)
    assert (whole.user_id, half.user_id) == ("3/c1/9", "3/c1/5")
    assert [(i.query, i.response) for i in whole.history] == [
        (None, "I like rye."),
        ("What shall I bake?", "Bread."),
        ("I went off rye.", "Why?"),
    ]
    assert [i.response for i in half.history] == ["I like rye.", "Bread."]
    assert whole.profile == half.profile == "Current user persona: Kim, a baker"
    assert counts == {"unasked_answers": 2}  # the greeting, in either
    first, second = whole.questions
    assert first.query == "Which flour?"
    assert first.choices == second.choices == ('Rye, it\'s "yours".', "Wheat\nthen.", "Oats.")
    assert (first.response, second.response) == ("Wheat\nthen.", "Oats.")
    assert [i.time for i in (*whole.history, *whole.questions)] == [0, 1, 2, 3, 4]


def test_a_conversation_is_one_session_wherever_it_stands(tmp_path: Path) -> None:
    other = {**ROW, "shared_context_id": "c2", "end_index_in_shared_context": "4"}
    whole, part = read(*put(tmp_path, ROW, other), Counter())
    sessions = [i.session for i in whole.history]
    assert sessions[0] == sessions[1] == part.history[0].session
    assert len(set(sessions)) == 2
    assert (part.history[1].query, part.history[1].response) == (None, "What shall I bake?")


def test_quizzes_become_data(tmp_path: Path) -> None:
    quizzes = read(*put(tmp_path, ROW), Counter())
    write(quizzes, tmp_path / "data")
    history = Histories.read(tmp_path / "data", tmp_path / "run").load("3/c1/9")
    assert history.interactions == (*quizzes[0].history, *quizzes[0].questions)
    assert history.profile == quizzes[0].profile
    assert are_labels(quizzes[0].questions * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shared_context_id": "c9"}, r"questions_32k\.csv:3: expected a context of .* got 'c9'"),
        ({"end_index_in_shared_context": "10"}, r"csv:3: expected an end .* of 9 messages"),
        ({"end_index_in_shared_context": "-1"}, r"csv:3: expected an end .* got '-1'"),
        ({"correct_answer": "(d)"}, r"csv:3: expected an answer among a, b, got '\(d\)'"),
        ({"all_options": "['(a) x', '(a) y']"}, r"csv:3: expected options .* that differ"),
        ({"all_options": "['(a) x', '(b) x']"}, r"csv:3: expected options .* that differ"),
        ({"all_options": "['(a) x', 'y']"}, r"csv:3: expected options"),
        ({"all_options": "__import__('os')"}, r"csv:3: expected options"),
        ({"all_options": "{[]: 1}"}, r"csv:3: expected options"),
        ({"end_index_in_shared_context": "9" * 5000}, r"csv:3: expected an end .* got '999"),
        ({"all_options": "[" * 9000}, r"csv:3: expected options"),
        ({"persona_id": " "}, r"csv:3: expected words in persona_id, got none"),
    ],
)
def test_a_bad_row_is_named_with_its_line(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    short = {**ROW, "all_options": "['(a) x', '(b) y']"}
    with pytest.raises(DataError, match=message):
        read(*put(tmp_path, short, {**short, **change}), Counter())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"c1": 4}', r"jsonl:2: expected a list of messages, got 4"),
        ('{"c1": [4]}', r"jsonl:2: expected a JSON object, got 4"),
        ('{"c1": [{"role": "tool", "content": "x"}]}', r"jsonl:2: expected a role of system"),
        ('{"c1": [{"role": "user", "content": null}]}', r"jsonl:2: expected 'content' as text"),
        ('{"c0": []}', r"jsonl:2: expected one context of id 'c0', got a second"),
        ("{", r"jsonl:2: expected JSON in UTF-8"),
    ],
)
def test_a_bad_context_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    questions, contexts = put(tmp_path, ROW)
    contexts.write_text('{"c0": []}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        read(questions, contexts, Counter())


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    questions, contexts = put(tmp_path)
    with pytest.raises(DataError, match=r"questions_32k\.csv: expected questions, got none"):
        read(questions, contexts, Counter())
    questions.write_text(",".join(COLUMNS[1:]) + "\n")
    with pytest.raises(DataError, match=r"csv: expected columns .* got none of \['persona_id'\]"):
        read(questions, contexts, Counter())
    questions.write_bytes(",".join(COLUMNS).encode() + b"\n\xff\xfe,\n")
    with pytest.raises(DataError, match=r"csv: expected CSV in UTF-8, got damaged data"):
        read(questions, contexts, Counter())
