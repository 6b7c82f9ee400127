"""A comparison of methods small enough for a test: three users and two that may be learned from."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from cluster.terms import Terms
from tests.cluster.tiny_run import write_base

USERS = ("ann/../etc", "ben", "Zoë \u4f60")
OTHERS = ("dan", "eve")
PAIRS = 40
CODE = "zyzzyva"  # a word that stands in test answers alone


def write_data(folder: Path, users: Sequence[str] = USERS, others: Sequence[str] = OTHERS) -> Path:
    """Histories in sessions of four pairs; the last answers of users hold the code word.

    The others' are too short to be compared.
    """
    draw = random.Random(0)
    lines = []
    for u, user in enumerate((*users, *others)):
        count = PAIRS if user in users else 20
        for i in range(count):
            liked = draw.choice(["bread", "carrots"])
            last = user in users and i >= count - 4
            lines.append(
                {
                    "user_id": user,
                    "time": i,
                    "session": f"{u}-{i // 4}",
                    "query": f"what about {draw.choice(['bread', 'dogs', 'soup'])} today?",
                    "response": f"I like {'abcdefgh'[u]} {CODE if last else liked} much",
                    "fact": {"value": "much", "kind": "asked", "choices": 4},
                }
            )
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def terms(folder: Path, methods: Sequence[str] = ("none", "milp"), **others: object) -> Terms:
    """Tiny terms on data and a base that are made where they aren't there."""
    data, base = folder / "data.jsonl", folder / "base"
    if not data.exists():
        write_data(folder)
        write_base(folder)
    given = {
        "users": len(USERS),
        "seeds": 2,
        "trials": 3,
        "items": 2,
        "injection_epochs": 1,
        "tuning_epochs": 1,
        **others,
    }
    return Terms(str(data), str(base), tuple(methods), **given)  # type: ignore[arg-type]
