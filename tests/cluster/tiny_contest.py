"""A comparison of methods small enough for a test: three users and two that may be learned from."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from cluster.arena import Arena, ArenaSettings
from cluster.effort import Effort
from cluster.entrant import entrants
from cluster.folder import RunFolder
from cluster.groundwork import prepared
from cluster.standing import Standing
from cluster.station import done
from cluster.tally import standing_of
from cluster.terms import Terms
from cluster.tuning import refusal
from cluster.unit import BASE, Unit, told
from tests.cluster.tiny_run import write_base

USERS = ("ann/../etc", "ben@work", "Zoë \u4f60")
OTHERS = ("dan@work", "eve@work")
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
                    "response": f"I like {'abcdefgh'[u % 8]} {CODE if last else liked} much",
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


def begun(folder: Path, of: Terms) -> Arena:
    """An arena of a comparison whose data is read and whose users are drawn, in this process."""
    run = RunFolder(folder / "out")
    run.begin(resume=False)
    prepared(of, run, entrants(of))
    arena = Arena(ArenaSettings(run.path, of.base, of, "cpu", 1))
    run.store(of, {"base_fingerprint": arena.base.fingerprint})
    return arena


def tried(arena: Arena) -> None:
    """Everything before the test part is read."""
    effort = Effort.of(arena.terms, entrants(arena.terms))
    done(arena, Unit("bare"))
    for line in (*effort.first_trials(), *effort.other_trials()):
        for unit in line:
            done(arena, unit)


def tested(arena: Arena) -> Standing:
    """Everything after, and how it stands."""
    rows = entrants(arena.terms)
    done(arena, Unit("untrained", BASE))
    for row in rows:
        if refusal(told(arena.units, row.label)) is None:
            for number in range(arena.terms.seeds):
                done(arena, Unit("final", row.label, number))
    return standing_of(arena.terms, arena.folder.path, rows, "none", {})


def texts_of(folder: Path) -> dict[str, str]:
    """Every file below a folder as text, byte for byte."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes().decode("latin-1") for file in files}
