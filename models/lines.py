"""One line of users' data: its fields, and what is wrong with a bad one.

It knows no file format: readers hand over records (what a line holds, however it was written) with
the place each comes from, and get checked lines back. The first bad line stops everything, since a
run that silently leaves out data can't be trusted; it is named with its place, what was expected,
what was got, and what to do.

Of times only the order counts. Numbers become float (equal beyond 2^53: file order decides), dates
ISO text; text sorts by code point.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import NamedTuple

LONGEST_USER_ID = 512
FACT_KINDS = ("asked", "unasked", "inferred")

QUOTES = "MILPA_QUOTES"  # "no" in the environment: messages go to a log, and logs quote nobody

Records = Iterator[tuple[str, object]]
"""Places (file and line, for messages) and what stands there."""


class DataError(ValueError):
    """Data that can't be read as interactions. The message says where, what, and what to do."""


class Line(NamedTuple):
    """One checked interaction, flat, as it is stored. The fields are `Interaction`'s and `Fact`'s.

    All of a data set's times are text, or all are numbers. `choices` hold the response. `held_out`
    is True or nothing.
    """

    user_id: str
    time: str | float
    query: str | None
    response: str
    session: str | None = None
    fact_value: str | None = None
    fact_kind: str | None = None
    fact_choices: int | None = None
    choices: list[str] | None = None
    held_out: bool | None = None


def check(records: Iterable[tuple[str, object]], counts: Counter[str]) -> Iterator[Line]:
    """Records as lines.

    Args:
        records: places, and what stands there.
        counts: gains `blank_queries`, lines that became posts since their query holds no words.

    Raises:
        DataError: the first bad one.
    """
    first: tuple[str, Line] | None = None
    for place, record in records:
        try:
            fields = as_object(record)
            line = _line(fields)
            first = first or (place, line)
            _check_same_time(line, *first)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        if line.query is None and fields.get("query") is not None:
            counts["blank_queries"] += 1
        yield line


def as_object(record: object) -> Mapping[str, object]:
    """The record, if it is a JSON object."""
    if not isinstance(record, dict):
        raise DataError(f"expected a JSON object, got {shown(record)}; write one object per line")
    return record


def text(record: Mapping[str, object], field: str) -> str:
    """A field that must hold words."""
    if record.get(field) is None:
        what = "null" if field in record else f"only the fields {shown(sorted(record))}"
        raise DataError(f"expected {field!r} as text, got {what}; give it or drop the line")
    found = _words(record[field], field)
    if found is None:
        raise DataError(f"expected words in {field!r}, got {shown(record[field])}; drop the line")
    return found


def shown(value: object) -> str:
    """A value for a message: 80 characters at most, and none of it where `QUOTES` is "no"."""
    if os.environ.get(QUOTES) == "no":
        return "what a log must not quote"
    form = repr(value)
    return form if len(form) <= 80 else f"{form[:77]}..."


def _line(record: Mapping[str, object]) -> Line:
    return Line(
        _user_id(record),
        _time(record),
        _words(record.get("query"), "query"),
        text(record, "response"),
        _words(record.get("session"), "session"),
        *_fact(record.get("fact")),
        _choices(record.get("choices"), record["response"]),
        _held_out(record.get("held_out")),
    )


def _user_id(record: Mapping[str, object]) -> str:
    user_id = text(record, "user_id")
    if len(user_id) > LONGEST_USER_ID:
        raise DataError(
            f"expected 'user_id' of at most {LONGEST_USER_ID} characters, since requests name "
            f"users by it, got {len(user_id)}; shorten it, or use a digest of it"
        )
    return user_id


def _words(value: object, field: str) -> str | None:
    """Text with words in it, unchanged; None for null and for blanks."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"expected {field!r} as text, got {shown(value)}; write it as a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"expected {field!r} as Unicode text, got a lone surrogate in {shown(value)}; remove it"
        ) from None
    return value if value.strip() else None


def _time(record: Mapping[str, object]) -> str | float:
    value = record.get("time")
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise DataError(f"expected 'time' as a finite number, got {shown(value)}; correct it")
    if isinstance(value, str) or value is None:
        return text(record, "time")
    raise DataError(f"expected 'time' as text or a number, got {shown(value)}; write it as either")


def _check_same_time(line: Line, first_place: str, first: Line) -> None:
    if type(line.time) is not type(first.time):
        kind = "text" if isinstance(first.time, str) else "a number"
        raise DataError(
            f"expected 'time' as {kind}, as at {first_place}, got {shown(line.time)}; "
            "write all times of the data set the same way"
        )


def _choices(value: object, response: object) -> list[str] | None:
    """The answers that a query may have, the true one among them."""
    if value is None:
        return None
    listed = value if isinstance(value, list) else []
    found = [words for each in listed if (words := _words(each, "choices")) is not None]
    if len(listed) < 2 or len(set(found)) < len(listed):
        raise DataError(
            f"expected 'choices' as a list of 2 or more texts that differ, got {shown(value)}; "
            "correct it or drop it"
        )
    if response not in found:
        raise DataError(
            f"expected 'response' to be one of 'choices' {shown(found)}, got {shown(response)}; "
            "correct either"
        )
    return found


def _held_out(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value or None
    raise DataError(f"expected 'held_out' as true or false, got {shown(value)}; correct it")


def _fact(value: object) -> tuple[str | None, str | None, int | None]:
    # Columnar formats write a missing fact as an object of nulls.
    if value is None or (
        isinstance(value, dict) and set(map(type, value.values())) == {type(None)}
    ):
        return None, None, None
    fact = as_object(value)
    kind, choices = fact.get("kind"), fact.get("choices")
    if kind not in FACT_KINDS or not isinstance(choices, int) or not 1 <= choices < 2**63:
        raise DataError(
            f"expected 'fact' with 'value', 'kind' (one of {', '.join(FACT_KINDS)}) and 'choices' "
            f"(1 or more), got {shown(value)}; correct it or drop the fact"
        )
    return text(fact, "value"), kind, choices
