"""A recorded problem: every configuration of a small space, really trained, for some users.

`benchmarks.record` makes a table; here it is read. `Recorded` is one user of a table, as a problem
that samplers search on in seconds. What a search is measured by is what was recorded, noise
included: a configuration that was lucky once is lucky for every sampler.

A table holds no text, and users by digests. Its first line names the learning rate that all were
trained at. Its columns: user; layers, as a whole number whose bits they are (0: the base itself);
rank; repeat; loss and ROUGE-L on validation (infinite and 0 where training failed); optimiser
steps; validation loss after every epoch of injection, and of tuning.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.pareto import LOSS, ROUGE_L, front
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

OBJECTIVES = (LOSS, ROUGE_L)
COLUMNS = "user,layers,rank,repeat,loss,rouge_l,steps,injection,tuning"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Record:
    """One training of one configuration for one user."""

    user: str
    layers: int  # as bits
    rank: int
    repeat: int
    loss: float
    rouge_l: float
    steps: int
    injection: tuple[float, ...]  # validation loss after each epoch
    tuning: tuple[float, ...]

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What it is a record of."""
        return self.user, self.layers, self.rank, self.repeat

    def configuration(self, rate: float) -> MemoryConfig:
        """What was trained, at this learning rate."""
        layers = tuple(i for i in range(self.layers.bit_length()) if self.layers >> i & 1)
        return MemoryConfig(layers, self.rank, rate)

    def line(self) -> str:
        """A line of the table."""
        curves = (" ".join(f"{loss:.4f}" for loss in c) for c in (self.injection, self.tuning))
        numbers = f"{self.loss:.5f},{self.rouge_l:.5f},{self.steps}"
        return f"{self.user},{self.layers},{self.rank},{self.repeat},{numbers},{','.join(curves)}"

    @classmethod
    def from_line(cls, line: str) -> Record:
        """The record of a line of the table."""
        user, layers, rank, repeat, loss, rouge_l, steps, *curves = line.split(",")
        injection, tuning = (tuple(map(float, curve.split())) for curve in curves)
        whole = (int(layers), int(rank), int(repeat))
        return cls(user, *whole, float(loss), float(rouge_l), int(steps), injection, tuning)


@dataclass(frozen=True)
class Table:
    """All records, and the learning rate that they were made at."""

    rate: float
    records: tuple[Record, ...]

    @property
    def users(self) -> list[str]:
        """Digests, in order of their first record."""
        return list(dict.fromkeys(record.user for record in self.records))

    def save(self, file: Path) -> None:
        """Writes the table, compressed; the same records give the same bytes."""
        lines = [f"learning rate {self.rate!r}", COLUMNS, *(r.line() for r in self.records)]
        text = "\n".join(lines) + "\n"
        file.write_bytes(gzip.compress(text.encode("ascii"), mtime=0))

    @classmethod
    def load(cls, file: Path) -> Table:
        """The table of a file.

        Raises:
            ValueError: it is not one.
        """
        first, columns, *lines = gzip.decompress(file.read_bytes()).decode("ascii").splitlines()
        if columns != COLUMNS:
            raise ValueError(f"{file}: expected columns {COLUMNS}, got {columns}")
        rate = float(first.removeprefix("learning rate "))
        return cls(rate, tuple(map(Record.from_line, lines)))

    def noise(self) -> tuple[float, float]:
        """Standard deviations of loss and ROUGE-L between repeats of the same training."""
        repeats: dict[tuple[object, ...], list[tuple[float, float]]] = {}
        for record in self.records:
            values = repeats.setdefault(record.key[:3], [])
            values.append((record.loss, record.rouge_l))
        several = [np.var(values, 0, ddof=1) for values in repeats.values() if len(values) > 1]
        loss, rouge_l = np.sqrt(np.mean(several, axis=0))
        return float(loss), float(rouge_l)


class Recorded:
    """One user of a table; see `benchmarks.searches.Problem`."""

    def __init__(self, table: Table, user: str) -> None:
        """The problem of a user, by digest.

        Raises:
            ValueError: the table doesn't hold the whole space of the user.
        """
        records = [record for record in table.records if record.user == user]
        self._first = {r.configuration(table.rate): r for r in records if r.repeat == 0}
        memories = [config for config in self._first if config.layers]
        ranks = tuple(sorted({config.rank for config in memories}))
        count = max((config.layers[-1] for config in memories), default=0) + 1
        self.space = SearchSpace(count, ranks or (1,), (table.rate,))
        if len(memories) != self.space.size() or BASE_CONFIG not in self._first:
            raise ValueError(
                f"expected the base and {self.space.size()} configurations of user {user}, "
                f"got {len(memories)}: record the rest"
            )
        self.name = f"recorded-{user}"
        self.base = self.observe(BASE_CONFIG)
        self._values = self.true(memories)

    @functools.cached_property
    def front(self) -> Array:
        """`k x 2` values that no configuration's dominate."""
        return self._values[front(OBJECTIVES, self._values.tolist())]

    @property
    def corner(self) -> tuple[float, ...]:
        """The worst of all that did not fail, by objective, but never worse than the base.

        As a search's reference point: where training mostly costs ROUGE-L, it looks for none of
        the configurations that have less of it than the base.
        """
        whole = self._values[np.isfinite(self._values).all(1)]
        loss, rouge_l = self.base
        return (min(float(whole[:, 0].max()), loss), max(float(whole[:, 1].min()), rouge_l))

    def true(self, configs: Sequence[MemoryConfig]) -> Array:
        """`n x 2` loss and ROUGE-L as recorded."""
        return np.array([self.observe(config) for config in configs]).reshape(-1, 2)

    def observe(self, config: MemoryConfig) -> tuple[float, ...]:
        """Loss and ROUGE-L as recorded."""
        return (self._first[config].loss, self._first[config].rouge_l)

    def curve(self, config: MemoryConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Validation loss after each epoch of injection and of tuning."""
        return self._first[config].injection, self._first[config].tuning
