"""Makes a recorded problem (see `benchmarks.recorded_problem`) of given data on a given base.

    python -m benchmarks.record --data DATA --base BASE --out FOLDER [--users 3] [--rate 1e-3]
                                [--shuffle] [--most-words 1000] [--dtype auto]

trains the whole space of the base at one learning rate (1,275 configurations of 8 layers) for each
user, as a trial of `milpa search` would, with the packed trainer; 50 of them three times over, for
the noise. Every result is appended to FOLDER/records.jsonl as it comes, so a run that was stopped
goes on where it was; at the end FOLDER/table.csv.gz is written, well below a megabyte. Users'
digests are under a key that stays in the folder. With `--shuffle` the order is drawn, users mixed:
what a stopped run leaves is a fair sample of the space, but packs share no lowest layer. With
`--most-words` users with longer training parts are passed over: their tables take longer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.recorded_problem import Record, Table
from models.base import Base
from models.catalog import attach_all, frame_all, personalizer
from models.history import Histories, Interaction, Split, TooShort, split, user_digest
from models.personalizer import Finished, Task
from models.scoring import answer_limit, evaluation_items, score
from models.training import Checkpoint
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

ITEMS = 32  # validation items answered
FEWEST_PAIRS = 30
REPEATED, TIMES = 50, 3


@dataclass(frozen=True)
class _Person:
    """A user to record."""

    digest: str
    user_id: str
    parts: Split
    answer_tokens: int


@dataclass(frozen=True)
class _Wanted:
    """One training to record."""

    person: _Person
    configuration: MemoryConfig
    repeat: int

    @property
    def key(self) -> tuple[str, int, int, int]:
        """See `Record.key`."""
        layers = sum(1 << layer for layer in self.configuration.layers)
        return self.person.digest, layers, self.configuration.rank, self.repeat

    @property
    def task(self) -> Task:
        """The same training, whenever it is recorded."""
        seed = int.from_bytes(hashlib.sha256(repr(self.key[1:]).encode()).digest()[:4], "big") >> 1
        parts, configuration = self.person.parts, self.configuration
        name = repr(self.key)
        return Task(name, self.person.user_id, parts.train, parts.validation, configuration, seed)


def record(
    base: Base,
    data: str,
    folder: Path,
    users: int,
    rate: float,
    slots: int,
    shuffle: bool = False,
    most_words: int | None = None,
) -> Iterator[Record]:
    """Trains what the folder doesn't hold yet; yields each result once it is written.

    Args:
        base: to train on.
        data: interactions, as `milpa search` reads them.
        folder: of the recording.
        users: how many.
        rate: the learning rate.
        slots: memories that train together.
        shuffle: draw the order, the same each time; every user's base still comes first.
        most_words: in the training part of a user; None takes any.

    Raises:
        ValueError: the folder was begun at another learning rate, or there are too few users.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _settle_rate(folder / "rate", rate)
    known = {one.key for one in kept(folder)}
    people = _people(base, data, folder, users, most_words)
    every = [_Wanted(p, c, r) for p in people for c, r in trainings(base, rate)]
    if shuffle:
        every = _shuffled(every)
    wanted = deque(one for one in every if one.key not in known)
    with (folder / "records.jsonl").open("a", encoding="ascii") as out:
        for one in _trained(base, wanted, slots):
            out.write(json.dumps(asdict(one)) + "\n")
            out.flush()
            yield one


def kept(folder: Path) -> list[Record]:
    """What a folder holds; a last line that was cut off is none."""
    file = folder / "records.jsonl"
    if not file.is_file():
        return []
    content = file.read_text(encoding="ascii")
    whole = content[: content.rfind("\n") + 1]
    if whole != content:
        file.write_text(whole, encoding="ascii")
    return [_record(json.loads(line)) for line in whole.splitlines()]


def trainings(base: Base, rate: float) -> list[tuple[MemoryConfig, int]]:
    """Configurations and repeats: the base, then all, those that share a lowest layer together.

    So a pack needs no gradient below that layer.
    """
    space, _ = SearchSpace.for_base(
        base.layer_count, base.smallest_dimension, learning_rates=(rate,)
    )
    every = sorted(space.enumerate(), key=lambda c: (-c.layers[0], c.rank, c.layers))
    count = min(REPEATED, len(every))
    chosen = np.random.default_rng(0).choice(len(every), count, replace=False).tolist()
    times = {every[i]: TIMES for i in chosen}
    return [(BASE_CONFIG, 0), *((c, r) for c in every for r in range(times.get(c, 1)))]


def _settle_rate(file: Path, rate: float) -> None:
    """Writes the learning rate down; a folder holds one."""
    if file.is_file() and float(file.read_text()) != rate:
        raise ValueError(f"{file}: expected the learning rate {file.read_text()}, got {rate!r}")
    file.write_text(repr(rate))


def _shuffled(wanted: Sequence[_Wanted]) -> list[_Wanted]:
    """In a drawn order, the same each time, the bases before all others."""
    order = np.random.default_rng(0).permutation(len(wanted)).tolist()
    return sorted((wanted[i] for i in order), key=lambda one: bool(one.configuration.layers))


def _people(
    base: Base, data: str, folder: Path, count: int, most_words: int | None = None
) -> list[_Person]:
    """Users whose history can be split between sessions, in an order that a key decides."""
    key_file, archive = folder / "key", folder / "data"
    if not key_file.is_file():
        key_file.write_bytes(secrets.token_bytes(32))
        key_file.chmod(0o600)
    key = key_file.read_bytes()
    histories = Histories.open(archive) if archive.is_dir() else Histories.read(data, archive)
    found: list[_Person] = []
    for user_id in sorted(histories.user_ids, key=lambda user: user_digest(key, user)):
        if histories.pair_counts[user_id] < FEWEST_PAIRS or len(found) == count:
            continue
        try:
            parts = split(histories.load(user_id))
        except TooShort:
            continue
        if parts.by_session and _words(parts.train) <= (most_words or math.inf):
            limit = answer_limit(base, parts.train)
            found.append(_Person(user_digest(key, user_id), user_id, parts, limit))
    if len(found) < count:
        bound = f" of at most {most_words} words" if most_words else ""
        raise ValueError(f"expected {count} users{bound} split between sessions, got {len(found)}")
    return found


def _words(items: Sequence[Interaction]) -> int:
    return sum(len(f"{item.query or ''} {item.response}".split()) for item in items)


def _trained(base: Base, wanted: deque[_Wanted], slots: int) -> Iterator[Record]:
    """Trains and scores; a place that becomes free is taken at the next step."""
    fitting = personalizer("milp").start(base)
    training: dict[str, _Wanted] = {}
    reports: dict[str, list[Checkpoint]] = {}
    ended: list[tuple[_Wanted, Finished]] = []
    while wanted or training:
        while wanted and len(training) < slots:
            one = wanted.popleft()
            training[one.task.key] = one
            fitting.add(one.task)
        told, finished = fitting.step()
        for report in told:
            reports.setdefault(report.key, []).append(report)
        ended += [(training.pop(end.key), end) for end in finished]
        if len(ended) >= slots or not (wanted or training):
            yield from _scored(base, ended, reports)
            ended = []


def _scored(
    base: Base, ended: Sequence[tuple[_Wanted, Finished]], reports: dict[str, list[Checkpoint]]
) -> Iterator[Record]:
    """Records of what has ended, all scored in the same batches; a failure is infinitely bad."""
    alive = [(one, end) for one, end in ended if end.error is None]
    people = [one.person for one, _ in alive]
    found = score(
        base,
        attach_all(base),
        [end.state for _, end in alive],
        [evaluation_items(person.parts.validation, ITEMS) for person in people],
        [person.answer_tokens for person in people],
        frame=frame_all(base),
        loss_items_of=[evaluation_items(person.parts.validation) for person in people],
    )
    values = {
        end.key: (scores.loss_nats, scores.rouge_l)
        for (_, end), scores in zip(alive, found, strict=True)
    }
    for one, end in ended:
        curves: dict[str, list[float]] = {"injection": [], "tuning": []}
        for report in reports.pop(end.key, []):
            curves[report.stage].append(report.loss_nats)
        loss, rouge_l = values.get(end.key, (math.inf, 0.0))
        yield Record(*one.key, loss, rouge_l, end.steps, *map(tuple, curves.values()))


def _record(values: dict[str, Any]) -> Record:
    return Record(**{**values, **{name: tuple(values[name]) for name in ("injection", "tuning")}})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shuffle", action="store_true")
    parser.add_argument("--most-words", type=int)
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    base = Base.load(given.base, dtype=given.dtype)
    every = given.users * len(trainings(base, given.rate))
    done = len(kept(given.out))
    settings = (given.users, given.rate, given.slots, given.shuffle, given.most_words)
    for one in record(base, given.data, given.out, *settings):
        done += 1
        print(f"{done} of {every}: {one.line()}", flush=True)
    table = Table(given.rate, tuple(sorted(kept(given.out), key=lambda r: r.key)))
    file = given.out / "table.csv.gz"
    table.save(file)
    loss, rouge_l = table.noise()
    print(f"{file}: {file.stat().st_size} bytes; noise {loss:.4f} nats, {rouge_l:.4f} ROUGE-L")


if __name__ == "__main__":
    main()
