"""The work that every side of a training benchmark does: users as tokens, and trials on them.

Plain values and their JSON, nothing imported: whoever reads a workload pays for no library. How
users become tokens is `recorded.py`'s part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Row = tuple[Sequence[int], int]
"""Tokens, and from which of them on the loss is taken."""


@dataclass(frozen=True)
class Stage:
    """Rows to learn, and how often at most."""

    rows: Sequence[Row]
    epochs: int


@dataclass(frozen=True)
class Person:
    """One user: what is learned, what the loss is taken on, what is answered."""

    stages: Sequence[Stage]
    validation: Sequence[Row]
    prompts: Sequence[Sequence[int]]
    references: Sequence[str]
    answer_tokens: int


@dataclass(frozen=True)
class PlannedTrial:
    """One (user, configuration) and its seed; `person` is a place in the workload."""

    person: int
    layers: Sequence[int]
    rank: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Workload:
    """A base, users, trials; `ends` are the tokens that end an answer."""

    base: str
    dtype: str
    matrices: Sequence[str]
    ends: Sequence[int]
    people: Sequence[Person]
    trials: Sequence[PlannedTrial]

    def save(self, file: Path) -> None:
        """Writes it as JSON."""
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Workload:
        """What `save` wrote."""
        values = json.loads(file.read_text(encoding="utf-8"))
        values["people"] = [_person(person) for person in values["people"]]
        values["trials"] = [PlannedTrial(**trial) for trial in values["trials"]]
        return cls(**values)


def _person(values: Mapping[str, Any]) -> Person:
    stages = [Stage(**stage) for stage in values["stages"]]
    return Person(**{**values, "stages": stages})
