"""The search space: which layers hold a LoRA, how many, of what rank, at what learning rate.

It knows neither the model nor the objectives: layers are numbers, and a configuration is a point
on a finite lattice. It imports numpy and the standard library alone, since every part of Milpa
reads configurations.

What a configuration means ("mask under a budget"). A point is (alpha, n, r, lr): alpha marks
layers, n is a budget. If more than n layers are marked, the n evenly spaced ones among them hold a
LoRA. Many points therefore mean the same, so a configuration is kept in *canonical form*: the
layers that do hold a LoRA, their rank, their learning rate. The empty one is the base model itself:
it is no member of a space, and no sampler proposes it.

Random points: half draw a count uniformly and then a uniform set of that size, half draw
independent bits; bits alone would never show very small or very large sets. `from_cube` is that
rule as a map from the unit cube, so uniform and Sobol points share it.

References: MiLP (arXiv 2404.03565), equations 1 and 6, Figure 2, Tables 4 and 6.

Notation: L layers, n most layers that may hold a LoRA, r rank, d columns of an encoding.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from search.configuration import BASE_CONFIG, MemoryConfig
from search.layers import LayerSets, spread

__all__ = ["BASE_CONFIG", "MemoryConfig", "SearchSpace"]

RANKS = (8, 16, 32, 64, 96)
MAX_COUNT = 32
PAPER_LEARNING_RATE = 5e-4
LEARNING_RATES = (1e-4, 1.78e-4, 3.16e-4, 5.62e-4, 1e-3, 1.78e-3, 3.16e-3, 5.62e-3, 1e-2)
_HEAD = 4  # coordinates of the unit cube before those of the layers

Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class SearchSpace:
    """Every configuration a search may propose, and all arithmetic on them.

    The switches are the paper's ablations (Table 4). Without `search_layers` every layer is marked
    and the count alone decides; without `search_number` the budget is `max_count`; size and
    learning rate are not searched where only one value is given.

    Raises:
        ValueError: no layers, no ranks, no learning rates, or values out of order.
    """

    layer_count: int
    ranks: tuple[int, ...] = RANKS
    learning_rates: tuple[float, ...] = LEARNING_RATES
    max_count: int = MAX_COUNT  # cut to the number of layers
    search_layers: bool = True
    search_number: bool = True

    def __post_init__(self) -> None:
        if self.layer_count < 1 or self.max_count < 1:
            raise ValueError(
                f"expected at least one layer and a count of at least one, "
                f"got {self.layer_count} and {self.max_count}"
            )
        for name, values in (("ranks", self.ranks), ("learning rates", self.learning_rates)):
            if not values or list(values) != sorted({v for v in values if 0 < v < math.inf}):
                raise ValueError(f"expected {name} above 0 in rising order, got {values}")
        object.__setattr__(self, "ranks", tuple(int(rank) for rank in self.ranks))
        object.__setattr__(self, "learning_rates", tuple(float(x) for x in self.learning_rates))
        object.__setattr__(self, "max_count", min(self.max_count, self.layer_count))

    @classmethod
    def for_base(
        cls,
        layer_count: int,
        smallest_dimension: int,
        *,
        ranks: Sequence[int] = RANKS,
        learning_rates: Sequence[float] = LEARNING_RATES,
        search_layers: bool = True,
        search_number: bool = True,
    ) -> tuple[Self, tuple[int, ...]]:
        """The space for a base, and the ranks left out: those above half its smallest dimension.

        Args:
            layer_count: feed-forward layers of the base.
            smallest_dimension: the smallest in or out dimension of its feed-forward matrices.
            ranks: in rising order; one value fixes it.
            learning_rates: in rising order; one value fixes it.
            search_layers: off marks every layer.
            search_number: off sets the budget to `max_count`.

        Raises:
            ValueError: no rank is left.
        """
        wanted = tuple(ranks)
        kept = tuple(rank for rank in wanted if 2 * rank <= smallest_dimension)
        if not kept:
            raise ValueError(
                f"expected a rank of at most half the base's smallest feed-forward dimension "
                f"({smallest_dimension}), got {wanted}: give smaller ranks"
            )
        left_out = tuple(rank for rank in wanted if rank not in kept)
        rates = tuple(learning_rates)
        return cls(layer_count, kept, rates, MAX_COUNT, search_layers, search_number), left_out

    # What it holds.

    @functools.cached_property
    def sets(self) -> LayerSets:
        """The sets of layers that may hold a LoRA."""
        return LayerSets(self.layer_count, self.max_count, self.search_layers, self.search_number)

    @property
    def search_size(self) -> bool:
        """Whether the rank is searched."""
        return len(self.ranks) > 1

    @property
    def search_learning_rate(self) -> bool:
        """Whether the learning rate is searched."""
        return len(self.learning_rates) > 1

    def size(self) -> int:
        """How many configurations there are, exactly; the base itself is not one."""
        return self.sets.size() * len(self.ranks) * len(self.learning_rates)

    def enumerate(self) -> Iterator[MemoryConfig]:
        """Every configuration once, in a fixed order. For small spaces: see `size`."""
        for layers in self.sets.enumerate():
            for rank, rate in itertools.product(self.ranks, self.learning_rates):
                yield MemoryConfig(layers, rank, rate)

    def __contains__(self, config: object) -> bool:
        return (
            isinstance(config, MemoryConfig)
            and config.rank in self.ranks
            and config.learning_rate in self.learning_rates
            and config.layers in self.sets
        )

    def canonical(
        self, marked: Sequence[bool], count: int, rank: int, learning_rate: float
    ) -> MemoryConfig:
        """The canonical form of (alpha, n, r, lr), under this space's switches."""
        if len(marked) != self.layer_count or not 0 <= count <= self.max_count:
            raise ValueError(
                f"expected {self.layer_count} marks and a count from 0 to {self.max_count}, "
                f"got {len(marked)} and {count}"
            )
        alpha = marked if self.search_layers else [True] * self.layer_count
        budget = count if self.search_number else self.max_count
        layers = [layer for layer, mark in enumerate(alpha) if mark]
        return MemoryConfig(spread(layers, budget), rank, learning_rate)

    # Points of the unit cube.

    @property
    def cube_dimensions(self) -> int:
        """Coordinates that `from_cube` reads."""
        return _HEAD + self.layer_count

    def from_cube(self, point: Array) -> MemoryConfig:
        """The configuration at a point of [0, 1)^(4 + L); uniform points are the random rule.

        The first four coordinates are: which half of the rule, count, rank, learning rate.
        `BASE_CONFIG` where no layer was drawn.
        """
        by_count, count_at, rank_at, rate_at = (float(x) for x in point[:_HEAD])
        rank, rate = _pick(self.ranks, rank_at), _pick(self.learning_rates, rate_at)
        places = point[_HEAD:]
        if not self.search_number or (self.search_layers and by_count >= 0.5):
            return self.canonical(list(places < 0.5), self.max_count, rank, rate)
        count = _pick(range(1, self.max_count + 1), count_at)
        chosen = set(np.argsort(places, kind="stable")[:count].tolist())
        marked = [layer in chosen for layer in range(self.layer_count)]
        return self.canonical(marked, count, rank, rate)

    def sample(self, generator: np.random.Generator) -> MemoryConfig:
        """A random configuration, never the base."""
        while not (config := self.from_cube(generator.random(self.cube_dimensions))).layers:
            pass
        return config

    def neighbours(self, config: MemoryConfig) -> list[MemoryConfig]:
        """One step away: a layer more or fewer, the next rank, the next learning rate."""
        sets = self.sets.neighbours(config.layers)
        ranks = _beside(self.ranks, config.rank)
        rates = _beside(self.learning_rates, config.learning_rate)
        return [
            *(MemoryConfig(layers, config.rank, config.learning_rate) for layers in sets),
            *(MemoryConfig(config.layers, rank, config.learning_rate) for rank in ranks),
            *(MemoryConfig(config.layers, config.rank, rate) for rate in rates),
        ]

    # What a surrogate sees.

    @property
    def dimensions(self) -> int:
        """Columns of an encoding: one for each thing searched."""
        bits = self.layer_count if self.search_layers else 0
        return bits + self.search_number + self.search_size + self.search_learning_rate

    def encode(self, config: MemoryConfig) -> Array:
        """`d` numbers in [0, 1]: L bits, count / n, log2 rank, position of the learning rate.

        What is not searched has no column.
        """
        if config not in self:
            raise ValueError(f"expected a configuration of the space, got {config.key}")
        bits = [float(layer in config.layers) for layer in range(self.layer_count)]
        columns = bits if self.search_layers else []
        if self.search_number:
            columns.append(len(config.layers) / self.max_count)
        if self.search_size:
            columns.append(_log_share(config.rank, self.ranks[0], self.ranks[-1]))
        if self.search_learning_rate:
            position = self.learning_rates.index(config.learning_rate)
            columns.append(position / (len(self.learning_rates) - 1))
        return np.array(columns, dtype=np.float64)

    def decode(self, encoding: Array) -> MemoryConfig:
        """The configuration nearest to an encoding; the inverse of `encode` on the space.

        `BASE_CONFIG` where no layer is marked.
        """
        columns = list(encoding)
        marked = [True] * self.layer_count
        if self.search_layers:
            marked = [bit >= 0.5 for bit in columns[: self.layer_count]]
            columns = columns[self.layer_count :]
        count = self.max_count
        if self.search_number:
            shown = round(columns.pop(0) * self.max_count)
            count = self.max_count if self.search_layers else shown
        rank, rate = self.ranks[0], self.learning_rates[0]
        if self.search_size:
            share = columns.pop(0)
            shares = [_log_share(r, self.ranks[0], self.ranks[-1]) for r in self.ranks]
            rank = self.ranks[int(np.argmin([abs(s - share) for s in shares]))]
        if self.search_learning_rate:
            rate = self.learning_rates[round(columns.pop(0) * (len(self.learning_rates) - 1))]
        return self.canonical(marked, count, rank, rate)

    def features(self, configs: Sequence[MemoryConfig], *, derived: bool = False) -> Array:
        """`n x d` encodings; `derived` adds log2 of the trainable parameters, in [0, 1].

        The parameters of a memory are count x rank times a constant of the base, and the constant
        goes where the column is scaled.
        """
        rows = [self.encode(config) for config in configs]
        encodings = np.array(rows, dtype=np.float64).reshape(len(rows), self.dimensions)
        largest = self.max_count * self.ranks[-1]
        if not derived or largest == self.ranks[0]:
            return encodings
        sizes = [len(config.layers) * config.rank for config in configs]
        column = [_log_share(size, self.ranks[0], largest) for size in sizes]
        return np.column_stack([encodings, np.array(column, dtype=np.float64)])

    def to_json(self) -> dict[str, object]:
        """What makes two spaces the same: stored with a study. `from_json` is the inverse."""
        values = asdict(self)
        return {**values, "ranks": list(self.ranks), "learning_rates": list(self.learning_rates)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The space that `to_json` wrote.

        Raises:
            ValueError: fields are missing, unknown or of the wrong type.
        """
        try:
            lists = {name: tuple(values[name]) for name in ("ranks", "learning_rates")}
            return cls(**{**values, **lists})
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected a search space, got {dict(values)!r:.200}") from error


def _pick(values: Sequence[T], share: float) -> T:
    return values[min(int(share * len(values)), len(values) - 1)]


def _beside(values: tuple[T, ...], value: T) -> list[T]:
    at = values.index(value)
    return [values[i] for i in (at - 1, at + 1) if 0 <= i < len(values)]


def _log_share(value: int, lowest: int, highest: int) -> float:
    return math.log2(value / lowest) / math.log2(highest / lowest)
