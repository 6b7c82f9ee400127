"""Nested dialogues: who answers whom, quotation marks, junk, and other shapes."""

from __future__ import annotations

from collections import Counter

import pytest

from models.dialogues import records
from models.lines import DataError


def turn(number: int, assistant: object, user: object) -> dict[str, dict[str, object]]:
    return {str(number): {"Assistant": assistant, "User": user}}


def test_the_next_assistant_turn_answers() -> None:
    dialogue = [turn(0, "Hello.", '"My head hurts."'), turn(1, '"Since when?"', "Monday.")]
    dialogue.append(turn(2, 'Take "rest".', "Thanks."))
    found = list(records([[], dialogue], "file", 11, Counter()))
    first = {"user_id": "dialogue-00012", "time": 0}
    assert found == [
        ("file: [1][0]", {**first, "query": "My head hurts.", "response": "Since when?"}),
        ("file: [1][1]", {**first, "time": 1, "query": "Monday.", "response": 'Take "rest".'}),
    ]


def test_junk_is_left_out_and_counted() -> None:
    counts: Counter[str] = Counter()
    dialogue = [turn(0, "a0", "u0"), turn(1, "", "u1"), turn(2, "a2", '""'), turn(3, "a3", "u3")]
    dialogue += [{"4": {"User": "u4"}}, turn(5, "a5", None)]
    pairs = [record for _, record in records([dialogue], "file", 0, counts)]
    said = [(pair["query"], pair["response"]) for pair in pairs if isinstance(pair, dict)]
    assert said == [("u1", "a2"), ("u4", "a5")]
    assert counts == {"junk_turns": 3}


@pytest.mark.parametrize(
    ("dialogue", "message"),
    [
        ({"user_id": "ann"}, r"^file: \[0\]: expected a list of turns.*named \.jsonl"),
        ([turn(0, "a", "u"), "text"], r"^file: \[0\]\[1\]: expected a turn"),
        ([{"0": "text"}], "expected a turn"),
        ([turn(0, "a", 5)], r"^file: \[0\]\[0\]: expected text, got 5"),
    ],
)
def test_another_shape_is_named_with_its_place(dialogue: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(records([dialogue], "file", 0, Counter()))
