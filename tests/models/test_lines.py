"""Checked lines: what passes unchanged, and what is said of each kind of bad line."""

from __future__ import annotations

import pickle
from collections import Counter
from datetime import date, datetime
from typing import Any

import pytest

from models.lines import DataError, Line, check

GOOD: dict[str, Any] = {"user_id": "ann", "time": 1, "query": "how are you", "response": "fine"}


def lines_of(*records: object) -> list[Line]:
    return list(check(((f"file:{n}", record) for n, record in enumerate(records, 1)), Counter()))


def test_a_line_keeps_its_fields() -> None:
    fact = {"value": "a dog", "kind": "inferred", "choices": 12}
    choices = ["bad", "fine"]
    record = {**GOOD, "session": "monday", "fact": fact, "choices": choices, "more": [1]}
    (line,) = lines_of(record)
    fields = ("ann", 1.0, "how are you", "fine", "monday", "a dog", "inferred", 12, choices)
    assert line == Line(*fields)


@pytest.mark.parametrize(
    "user_id", ["a/b", "../../etc/passwd", "..", "ünï\u200dcode 🙂", "x" * 512, " padded "]
)
def test_user_ids_are_data(user_id: str) -> None:
    assert lines_of({**GOOD, "user_id": user_id})[0].user_id == user_id


def test_a_post_has_no_query() -> None:
    counts: Counter[str] = Counter()
    records = [{**GOOD, "query": None}, {**GOOD, "query": " \n"}, {**GOOD, "query": "?"}]
    lines = list(check((("file:1", record) for record in records), counts))
    assert [line.query for line in lines] == [None, None, "?"]
    assert counts == {"blank_queries": 1}
    without_query = {name: value for name, value in GOOD.items() if name != "query"}
    assert lines_of(without_query)[0].query is None


def test_dates_become_text_that_sorts() -> None:
    times = [datetime(2024, 5, 1, 9), datetime(2024, 5, 1, 9, 0, 0, 5), datetime(2024, 5, 2)]
    texts = [line.time for line in lines_of(*({**GOOD, "time": time} for time in times))]
    assert texts == sorted(texts, key=str)
    assert len(set(texts)) == 3
    assert lines_of({**GOOD, "time": date(2024, 5, 1)})[0].time == "2024-05-01"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": ""}, "expected words in 'user_id', got ''"),
        ({"user_id": "  "}, "expected words in 'user_id', got '  '"),
        ({"user_id": 7}, "expected 'user_id' as text, got 7"),
        ({"user_id": "x" * 513}, "'user_id' of at most 512 characters.*got 513"),
        ({"user_id": None}, "expected 'user_id' as text, got null"),
        ({"time": float("nan")}, "expected 'time' as a finite number, got nan"),
        ({"time": float("inf")}, "expected 'time' as a finite number, got inf"),
        ({"time": 10**400}, "expected 'time' as a finite number, got 1000"),
        ({"time": True}, "expected 'time' as text or a number, got True"),
        ({"time": [1]}, r"expected 'time' as text or a number, got \[1\]"),
        ({"time": ""}, "expected words in 'time', got ''"),
        ({"time": None}, "expected 'time' as text, got null"),
        ({"query": 3}, "expected 'query' as text, got 3"),
        ({"response": ""}, "expected words in 'response', got ''"),
        ({"response": " \t\n"}, "expected words in 'response'"),
        ({"response": {"text": "x"}}, "expected 'response' as text, got {'text': 'x'}"),
        ({"response": "\ud800"}, "lone surrogate"),
        ({"session": 5}, "expected 'session' as text, got 5"),
        ({"fact": "dog"}, "expected a JSON object, got 'dog'"),
        ({"fact": {"value": "dog", "kind": "told", "choices": 2}}, "asked, unasked, inferred"),
        ({"fact": {"value": "dog", "kind": "asked", "choices": 0}}, "'choices'"),
        ({"fact": {"value": ["x"], "kind": "asked", "choices": 2}}, "expected 'value' as text"),
        ({"fact": {"value": "x", "kind": ["asked"], "choices": 2}}, "asked, unasked, inferred"),
        ({"fact": {"value": "x", "kind": "asked", "choices": 10**30}}, "'choices'"),
        ({"fact": {"value": "", "kind": "asked", "choices": 2}}, "expected words in 'value'"),
        ({"choices": "fine"}, "expected 'choices' as a list .* that differ, got 'fine'"),
        ({"choices": ["fine"]}, "expected 'choices' as a list of 2 or more texts"),
        ({"choices": ["fine", 3]}, "expected 'choices' as text, got 3"),
        ({"choices": ["fine", " "]}, "expected 'choices' as a list .* that differ"),
        ({"choices": ["fine", "fine"]}, "expected 'choices' as a list .* that differ"),
        ({"choices": ["bad", "good"]}, r"to be one of 'choices' \['bad', 'good'\], got 'fine'"),
    ],
)
def test_a_bad_field_is_named_with_its_place(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=rf"^file:2: .*{message}.*; "):
        lines_of(GOOD, {**GOOD, **change})


@pytest.mark.parametrize("field", ["user_id", "time", "response"])
def test_a_missing_field_is_named(field: str) -> None:
    record = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(DataError, match=rf"^file:1: expected '{field}' as text, got only"):
        lines_of(record)


@pytest.mark.parametrize("record", [[], "text", 3, None])
def test_a_line_is_an_object(record: object) -> None:
    with pytest.raises(DataError, match=r"^file:1: expected a JSON object, got"):
        lines_of(record)


def test_mixed_types_of_time_name_both_places() -> None:
    other = {**GOOD, "user_id": "bob", "time": "2024-05-01"}
    with pytest.raises(DataError, match=r"^file:3: .* a number, as at file:1, got '2024-05-01'"):
        lines_of(GOOD, {**GOOD, "time": 2.5}, other)


def test_a_message_is_short_and_survives_pickling() -> None:
    with pytest.raises(DataError) as raised:
        lines_of({**GOOD, "response": ["long" * 1000]})
    assert len(str(raised.value)) < 200
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
