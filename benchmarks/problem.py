"""A search problem made up for measuring samplers: users, two noisy objectives, a known front.

It imitates what training memories shows, in milliseconds. Layers come in blocks of eight. In each
block lie a few things to be learned, each at a place between layers; a layer learns what lies near
it, so neighbours are alike and partly replace one another, and layers matter unequally. How much of
it a layer learns saturates with the rank, at a pace of its own. What is learned lowers the loss and
raises ROUGE-L, but the two value things differently. Layers, ranks and high learning rates load the
memory, unequally by layer; beyond what the history carries it overfits, for ROUGE-L sooner. So the
best capacity grows with the history, and the objectives conflict. Too low a learning rate learns
little, too high a one diverges, and the best one falls as the rank grows.

None of the problem's own variables is a column that a surrogate may see: load and learning depend
on which layers, not on how many, and on powers of the rank that no column holds. So no surrogate is
handed the answer.

Users are related to a settable degree: every hidden number is a mixture of one that all share and
one of the user's own, in such proportions that its distribution is the same at every degree. Only
the history's size is always the user's own.

The true front is exact. Under one rank and learning rate, both objectives are monotone in three
sums over blocks: what the loss gets, what ROUGE-L gets, and the load, a whole number. So the best
sums are built block by block, keeping for every load what no other dominates.

Notation: L layers, F things to learn, r rank, S a set of layers as L bits; `n x 2` values.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from search.pareto import LOSS, ROUGE_L, oriented
from search.space import MemoryConfig, SearchSpace

OBJECTIVES = (LOSS, ROUGE_L)
SIGNS = oriented(OBJECTIVES, [(1.0, 1.0)])  # times values: bigger is better
BLOCK = 8  # layers
THINGS = 6  # to learn in a block
REACH = 1.2  # layers, from which a thing is learned
BASE = (4.0, 0.10)  # loss in nats, ROUGE-L
LOSS_GAIN, ROUGE_GAIN = 1.0, 0.3  # of a memory that learned everything
NOISE = (0.012, 0.006)  # standard deviations
NADIR_SAMPLE = 1000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Hidden:
    """What makes a user: standard normal numbers."""

    strength: Array  # L
    pace: Array  # L
    load: Array  # L
    place: Array  # F
    to_loss: Array  # F
    to_rouge: Array  # F
    rate: Array  # 1
    size: Array  # 1


class MadeUpProblem:
    """One user's problem."""

    def __init__(self, layer_count: int, user: int, related: float, seed: int = 0) -> None:
        """User number `user` of a population.

        Args:
            layer_count: a multiple of eight.
            user: from 0 upwards.
            related: 0, where users have nothing in common, to 1, where only sizes differ.
            seed: of the population.
        """
        if layer_count % BLOCK or not 0 <= related <= 1:
            raise ValueError(
                f"expected a multiple of {BLOCK} layers, related from 0 to 1, "
                f"got {layer_count}, {related}"
            )
        self.name = f"made-up-L{layer_count}-related{related:g}-user{user}"
        self.space = SearchSpace(layer_count)
        self.base: tuple[float, ...] = BASE
        self.seed = [seed, user]
        hidden = _hidden(layer_count, user, related, seed)
        self.size = round(300 * 2 ** float(hidden.size[0]))  # interactions
        self._strength = 0.35 + 0.6 * ndtr(hidden.strength)
        self._pace = 4 * 12 ** ndtr(hidden.pace)  # ranks, from 4 to 48
        self._load = 1 + np.floor(4 * ndtr(hidden.load)).astype(int)
        places = BLOCK * ndtr(hidden.place).reshape(-1, THINGS)
        blocks = np.arange(layer_count // BLOCK)[:, None]
        away = np.arange(layer_count)[:, None] + 0.5 - (places + BLOCK * blocks).reshape(-1)
        near = np.exp(-((away / REACH) ** 2))
        self._cover = near * np.kron(np.eye(len(blocks)), np.ones((BLOCK, THINGS)))  # L x F
        self._worth = np.stack([_shares(hidden.to_loss), _shares(hidden.to_rouge)], axis=1)
        self._best_rate = -2.75 + 0.3 * float(hidden.rate[0])
        self._carried = 1.5 * layer_count * (self.size / 300) ** 0.5

    def true(self, configs: Sequence[MemoryConfig]) -> Array:
        """`n x 2` loss and ROUGE-L without noise."""
        return np.array([self._true(config) for config in configs]).reshape(-1, 2)

    def observe(self, config: MemoryConfig, repeat: int = 0) -> tuple[float, ...]:
        """Loss and ROUGE-L as a trial would measure them; the same at every call."""
        bits = sum(1 << layer for layer in config.layers)
        rate = round(1e9 * config.learning_rate)
        generator = np.random.default_rng([*self.seed, bits, config.rank, rate, repeat])
        noise = generator.standard_normal(2) * NOISE
        return tuple((self._true(config) + noise * bool(config.layers)).tolist())

    @functools.cached_property
    def front(self) -> Array:
        """`k x 2` values that no configuration's dominate, exactly.

        Raises:
            ValueError: a point may need more layers than the space allows.
        """
        reached, counts = [], []
        for rank in self.space.ranks:
            best = self._best_sums(rank)
            sums = np.concatenate(list(best.values()))
            loads = np.repeat(list(best), [len(rows) for rows in best.values()])
            for rate in self.space.learning_rates:
                reached.append(self._outcome(sums[:, :2], loads, rank, rate))
                counts.append(sums[:, 2])
        values = np.concatenate(reached)
        kept = _undominated(values * SIGNS)
        if np.concatenate(counts)[kept].max() > self.space.max_count:
            raise ValueError(f"expected a front of at most {self.space.max_count} layers")
        return values[kept]

    @functools.cached_property
    def corner(self) -> tuple[float, ...]:
        """Where hypervolume counts from: what three in four random memories beat, or the base."""
        generator = np.random.default_rng([*self.seed, 1])
        drawn = [self.space.sample(generator) for _ in range(NADIR_SAMPLE)]
        low = np.quantile(self.true(drawn) * SIGNS, 0.25, axis=0)
        corner = np.maximum(low, oriented(OBJECTIVES, [BASE])[0])
        return tuple(o.oriented(float(y)) for o, y in zip(OBJECTIVES, corner, strict=True))

    def _true(self, config: MemoryConfig) -> Array:
        if not config.layers:
            return np.array(BASE)
        layers = list(config.layers)
        sums = self._learned(layers, config.rank)[None] @ self._worth
        load = self._load[layers].sum(keepdims=True)
        values: Array = self._outcome(sums, load, config.rank, config.learning_rate)[0]
        return values

    def _learned(self, layers: Sequence[int], rank: int) -> Array:
        """`F` shares of what there is to learn that these layers learn together."""
        saturated = 1 - np.exp(-rank / self._pace[layers])
        each = self._strength[layers, None] * saturated[:, None] * self._cover[layers]
        learned: Array = 1 - np.prod(1 - each, axis=0)
        return learned

    def _outcome(self, sums: Array, load: Array, rank: int, rate: float) -> Array:
        """`n x 2` values of `n x 2` worths of what was learned, and of `n` loads."""
        high = np.log10(rate) - self._best_rate + 0.25 * np.log10(rank / 32) + np.array([0, 0.3])
        learned = sums * np.exp(-((np.minimum(high, 0) / 0.8) ** 2))
        strain = (load / self._carried * (rank / 32) ** 0.5)[:, None] * 10 ** (0.5 * high)
        diverged = np.maximum(high - 0.9, 0)
        loss = BASE[0] - LOSS_GAIN * learned[:, 0] + 0.06 * strain[:, 0] ** 2 + 0.5 * diverged[0]
        rouge = BASE[1] + ROUGE_GAIN * learned[:, 1] - 0.06 * strain[:, 1]
        return np.stack([loss, np.maximum(rouge - 0.1 * diverged[1], 0)], axis=1)

    def _best_sums(self, rank: int) -> dict[int, Array]:
        """By load: `k x 3`, worths and number of layers of sets that learn most."""
        best = {0: np.zeros((1, 3))}
        for start in range(0, len(self._load), BLOCK):
            found: dict[int, list[Array]] = {}
            for load, sums in self._block_sums(start, rank).items():
                for other, others in best.items():
                    pairs = (sums[:, None] + others[None]).reshape(-1, 3)
                    found.setdefault(load + other, []).append(pairs)
            best = {load: _pruned(np.concatenate(sums)) for load, sums in found.items()}
        del best[0]  # the base
        return best

    def _block_sums(self, start: int, rank: int) -> dict[int, Array]:
        found: dict[int, list[Array]] = {}
        for count in range(BLOCK + 1):
            for layers in itertools.combinations(range(start, start + BLOCK), count):
                chosen = list(layers)
                worth = self._learned(chosen, rank) @ self._worth
                found.setdefault(int(self._load[chosen].sum()), []).append(np.append(worth, count))
        return {load: _pruned(np.array(sums)) for load, sums in found.items()}


def _hidden(layer_count: int, user: int, related: float, seed: int) -> Hidden:
    things = layer_count // BLOCK * THINGS
    widths = (*[layer_count] * 3, *[things] * 3, 1)
    shared, own = (np.random.default_rng(s) for s in ([seed], [seed, user + 1]))
    mixed = [
        related * shared.standard_normal(width)
        + np.sqrt(1 - related**2) * own.standard_normal(width)
        for width in widths
    ]
    return Hidden(*[*mixed, own.standard_normal(1)])


def _shares(normal: Array) -> Array:
    weights: Array = np.exp(1.2 * normal)
    weights /= weights.sum()
    return weights


def _undominated(Y: Array) -> NDArray[np.intp]:
    """Positions of the rows that no other dominates, bigger being better; two columns."""
    order = np.lexsort((-Y[:, 1], -Y[:, 0]))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], Y[order, 1][:-1]]))
    kept: NDArray[np.intp] = order[Y[order, 1] > best]
    return kept


def _pruned(sums: Array) -> Array:
    """Without the rows whose first two columns another row's dominate."""
    return sums[_undominated(sums)]
