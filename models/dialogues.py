"""The nested JSON of the MedicalDialogue set, as records of the plain format.

A list of dialogues, each a list of turns `{"0": {"Assistant": ..., "User": ...}}`. The user is the
patient, and the assistant answers: a turn's `User` is the query, and its response is the *next*
turn's `Assistant`. Dialogues have no names, so a user is called by the dialogue's number. Quotation
marks around a whole text are taken off; a pair that lacks a side is machine-made junk: it is left
out, and counted.

It knows no files. Reference: MatthewKKai/MaLP (arXiv 2309.11696).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from models.lines import DataError, Records, shown


def records(dialogues: Sequence[object], name: str, first: int, counts: Counter[str]) -> Records:
    """Every pair of the dialogues.

    Args:
        dialogues: the file's content.
        name: the file's, for messages.
        first: number of the first dialogue, counted over all of the data set's files.
        counts: gains `junk_turns`.

    Raises:
        DataError: another shape.
    """
    for number, dialogue in enumerate(dialogues):
        place = f"{name}: [{number}]"
        if not isinstance(dialogue, list):
            raise DataError(
                f"{place}: expected a list of turns, got {shown(dialogue)}; write "
                "interactions one object per line, in a file named .jsonl"
            )
        yield from _pairs(dialogue, f"dialogue-{first + number:05d}", place, counts)


def _pairs(dialogue: list[object], user_id: str, place: str, counts: Counter[str]) -> Records:
    turns = [_turn(turn, f"{place}[{number}]") for number, turn in enumerate(dialogue)]
    for time, ((_, query), (response, _)) in enumerate(pairwise(turns)):
        if query and response:
            pair = {"user_id": user_id, "time": time, "query": query, "response": response}
            yield f"{place}[{time}]", pair
        else:
            counts["junk_turns"] += 1


def _turn(turn: object, place: str) -> tuple[str, str]:
    """What the assistant and the user said; empty where a side is missing."""
    sides = next(iter(turn.values())) if isinstance(turn, dict) and len(turn) == 1 else None
    if not isinstance(sides, dict):
        raise DataError(
            f'{place}: expected a turn {{"0": {{"Assistant": text, "User": text}}}}, got '
            f"{shown(turn)}; correct it"
        )
    assistant, user = (_unquoted(sides.get(side), place) for side in ("Assistant", "User"))
    return assistant, user


def _unquoted(said: object, place: str) -> str:
    if said is None:
        return ""
    if not isinstance(said, str):
        raise DataError(f"{place}: expected text, got {shown(said)}; write it as a string")
    words = said.strip()
    wrapped = len(words) > 1 and words[0] == words[-1] == '"'
    return words[1:-1].strip() if wrapped else words
