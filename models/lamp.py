"""LaMP's published files as quizzes: `*_questions.json` with its `*_outputs.json`.

    questions: [{"id", "input", "profile": [{"id", ..., "date"?}, ...], "user_id"?}, ...]
    outputs: {"task": "LaMP_3", "golds": [{"id", "output"}, ...]}

A profile's items become the user's history. Where a task asks of a profile what it asks of the
question (2 to 5), an item is a pair whose query is worded as the question is: its words up to and
with the mark before the text asked about, then the item's own text. For citations (1), whose items
are the author's papers, the title asks for the abstract; tweets (7) are posts. Task 2 is movies, or
news in its first version, as the mark says. Task 6 needs e-mails under a licence.

A user is a question's `user_id` where there is one (files split by time), else the question itself
(files split by users). Items with dates are put in their order, after those without, which stay as
they stand. A question's own text and answer are left out of the history.

Reference: Salemi et al., LaMP: When Large Language Models Meet Personalization, arXiv 2304.11406.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.lines import DataError, shown, text
from models.quiz import Entry, Quiz, quiz_of, session_of
from models.readers import document

_NAME = re.compile(r"LaMP[_-](\d)\w*")


@dataclass(frozen=True)
class LampTask:
    """How a task's profile reads: `answer` of an item is asked for by `asked`.

    `mark` stands before the text that a question is about; without one, `words` ask for an item's.
    """

    answer: str
    asked: str | None = None
    mark: str | None = None
    words: str = ""
    labels: tuple[str, ...] | None = None


_TAGS = (
    "sci-fi", "based on a book", "comedy", "action", "twist ending", "dystopia", "dark comedy",
    "classic", "psychology", "fantasy", "romance", "thought-provoking", "social commentary",
    "violence", "true story",
)  # fmt: skip
_CATEGORIES = (
    "women", "religion", "politics", "style & beauty", "entertainment", "culture & arts", "sports",
    "science & technology", "travel", "business", "crime", "education", "healthy living", "parents",
    "food & drink",
)  # fmt: skip
_CITATION = "Write the abstract of the paper with this title:"

TASKS: Mapping[int, tuple[LampTask, ...]] = {
    1: (LampTask("abstract", "title", words=_CITATION, labels=("[1]", "[2]")),),
    2: (
        LampTask("tag", "description", "description:", labels=_TAGS),
        LampTask("category", "text", "article:", labels=_CATEGORIES),
    ),
    3: (LampTask("score", "text", "review:", labels=("1", "2", "3", "4", "5")),),
    4: (LampTask("title", "text", "article:"),),
    5: (LampTask("title", "abstract", "paper:"),),
    7: (LampTask("text"),),
}
"""Each task's number: how it reads, or the ways it may."""


def read(questions: Path, outputs: Path) -> list[Quiz]:
    """The quizzes of a task, in the order of its questions.

    Raises:
        DataError: a file that is not in this format; names it, the question and what is wrong.
        OSError: missing or unreadable.
    """
    number, golds = _golds(outputs)
    histories: dict[str, dict[Entry, tuple[int, ...]]] = defaultdict(dict)
    asked: dict[str, list[Entry]] = defaultdict(list)
    unread = dict(golds)
    for place, record in _listed(document(questions), str(questions)):
        key = _told(record, "id", place)
        if key not in unread:
            known = "a second question of this id" if key in golds else f"none in {outputs}"
            raise DataError(
                f"{place}: expected one output of id {shown(key)}, got {known}; "
                "give both files of one split"
            )
        user = _told(record, "user_id", place) if "user_id" in record else key
        task = _task(record, number, place)
        asked[user].append(_question(record, task, unread.pop(key), place))
        histories[user].update(_history(record, task, place))
    if unread or not asked:
        raise DataError(
            f"{questions}: expected a question for each of {len(golds)} outputs of {outputs}, got "
            f"none for {len(unread)}; give both files of one split"
        )
    return [_quiz(user, histories[user], asked[user]) for user in asked]


def _quiz(user: str, history: Mapping[Entry, tuple[int, ...]], questions: list[Entry]) -> Quiz:
    answered = {entry.session for entry in questions}
    known = sorted((e for e in history if e.session not in answered), key=history.__getitem__)
    return quiz_of(user, known, questions)


def _golds(outputs: Path) -> tuple[int, dict[str, str]]:
    """The task's number, and the true answer of every question."""
    found = document(outputs)
    if not isinstance(found, dict) or not isinstance(found.get("task"), str):
        raise DataError(
            f"{outputs}: expected an object with 'task' and 'golds', got {shown(found)}; "
            "give the outputs file as published"
        )
    name = _NAME.fullmatch(found["task"])
    if name is None or int(name[1]) not in TASKS:
        known = ", ".join(f"LaMP_{number}" for number in TASKS)
        raise DataError(
            f"{outputs}: expected a task of {known}, got {shown(found['task'])}; give one of these"
        )
    golds: dict[str, str] = {}
    for place, record in _listed(found.get("golds"), f"{outputs}: golds"):
        key = _told(record, "id", place)
        if key in golds:
            raise DataError(
                f"{place}: expected one output of id {shown(key)}, got a second; drop one"
            )
        golds[key] = _told(record, "output", place).strip()
    return int(name[1]), golds


def _task(record: Mapping[str, object], number: int, place: str) -> LampTask:
    """The one of a task's ways that a question is in: the one whose mark comes first."""
    asked = _told(record, "input", place)
    ways = [task for task in TASKS[number] if task.mark is None or task.mark in asked]
    if not ways:
        marks = " or ".join(repr(task.mark) for task in TASKS[number])
        raise DataError(
            f"{place}: expected {marks} in 'input' before its text, got none; correct it"
        )
    return min(ways, key=lambda task: asked.find(task.mark or ""))


def _question(record: Mapping[str, object], task: LampTask, gold: str, place: str) -> Entry:
    query = _told(record, "input", place)
    if task.labels is not None and gold not in task.labels:
        known = ", ".join(task.labels)
        raise DataError(f"{place}: expected an output among {known}, got {shown(gold)}; correct it")
    return Entry(query, gold, session_of(query, gold), task.labels)


def _history(
    record: Mapping[str, object], task: LampTask, place: str
) -> dict[Entry, tuple[int, ...]]:
    """The profile's items with their dates."""
    entries: dict[Entry, tuple[int, ...]] = {}
    for where, item in _listed(record.get("profile"), f"{place}: profile"):
        response = _told(item, task.answer, where)
        query = None
        if task.asked is not None:
            query = f"{_wording(record, task, place)} {_told(item, task.asked, where)}"
        # An item's answer may be one that no question has: then it is history alone.
        choices = task.labels if response in (task.labels or ()) else None
        entry = Entry(query, response, session_of(query or "", response), choices)
        entries.setdefault(entry, _date(item, where))
    return entries


def _wording(record: Mapping[str, object], task: LampTask, place: str) -> str:
    """What asks for an item's answer: the question's own words, where these can be told."""
    if task.mark is None:
        return task.words
    before, mark, _ = _told(record, "input", place).partition(task.mark)
    return before + mark


def _date(item: Mapping[str, object], place: str) -> tuple[int, ...]:
    """Year, month and day, as far as they are given; empty without."""
    value = item.get("date")
    try:
        return () if value is None else tuple(int(part) for part in str(value).split("-"))
    except ValueError:
        raise DataError(
            f"{place}: expected 'date' as year-month-day, got {shown(value)}; correct it"
        ) from None


def _listed(found: object, place: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Objects in a list, each with its place."""
    if not isinstance(found, list):
        raise DataError(f"{place}: expected a list of objects, got {shown(found)}; correct it")
    for number, record in enumerate(found):
        where = f"{place}[{number}]"
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected an object, got {shown(record)}; correct it")
        yield where, record


def _told(record: Mapping[str, object], field: str, place: str) -> str:
    """A field's words; numbers (ids, scores) are written out."""
    value = record.get(field)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    try:
        return text(record, field)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
