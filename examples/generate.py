"""The two files of a run in the plain format: users to personalise for, and other people.

A person's log is an assistant's log (`user_said: query`): the facts stand in posts and in what is
said before a request, the answers are the assistant's. Sessions never reach from one part of the
log into the next, so a split in time and between sessions falls between the parts.

Same arguments, same bytes: every person has generators of their own, seeded with strings.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from examples.log import Line, parts
from examples.people import Person, draw_fair_facts, draw_stranger, draw_user
from examples.world import ATTRIBUTES, FOLLOWS_FROM

FIRST_DAY = datetime(2024, 1, 1, 8)


def write(folder: Path, users: int, seed: int, population: int) -> None:
    """Write `users/interactions.jsonl` and `population/interactions.jsonl` under the folder.

    Raises:
        ValueError: fewer than one user, or fewer others than none.
        FileExistsError: the folder is a file.
    """
    for name, count, least in (("--users", users, 1), ("--population", population, 0)):
        if count < least:
            raise ValueError(f"{name}: expected at least {least}, got {count}")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out: {folder} is no folder; choose another name")
    _write_logs(folder / "users", people(users, seed), seed)
    strangers = (
        draw_stranger(random.Random(f"{seed} other {i}"), f"other-{i:04d}")
        for i in range(population)
    )
    _write_logs(folder / "population", strangers, seed)


def people(users: int, seed: int) -> list[Person]:
    """The users: their sizes evenly spread on a log scale, in random order."""
    rng = random.Random(f"{seed} users")
    facts = draw_fair_facts(rng, users)
    sizes = rng.sample([i / max(users - 1, 1) for i in range(users)], users)
    return [
        draw_user(random.Random(f"{seed} user {i}"), f"user-{i:03d}", facts[i], sizes[i])
        for i in range(users)
    ]


def records(person: Person, rng: random.Random) -> Iterator[dict[str, object]]:
    """One person's interactions in time order, each a line of the plain format."""
    sessions = [session for part in parts(person, rng) for session in _sessions(part, rng)]
    for day, session in enumerate(sessions):
        start = FIRST_DAY + timedelta(days=day, minutes=rng.randrange(720))
        for minute, line in enumerate(session):
            time = (start + timedelta(minutes=minute)).isoformat()
            yield _record(person, line, time, session=f"day-{day:03d}")


def _write_logs(folder: Path, people: Iterable[Person], seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "interactions.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for person in people:
            for record in records(person, random.Random(f"{seed} log {person.user_id}")):
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _sessions(lines: Sequence[Line], rng: random.Random) -> Iterator[Sequence[Line]]:
    start = 0
    while start < len(lines):
        length = rng.randint(2, 6)
        yield lines[start : start + length]
        start += length


def _record(person: Person, line: Line, time: str, session: str) -> dict[str, object]:
    record: dict[str, object] = {
        "user_id": person.user_id,
        "time": time,
        "query": line.query,
        "response": line.response,
        "session": session,
    }
    if line.topic is not None:
        attribute = FOLLOWS_FROM.get(line.topic, line.topic)
        record["fact"] = {
            "value": person.value(line.topic),
            "kind": person.kind(line.topic),
            "choices": len(ATTRIBUTES[attribute]),
        }
    return record
