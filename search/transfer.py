"""What other users' studies advise a new user to try first: a portfolio.

A portfolio is a few configurations, each from the front of another user's finished study, chosen
greedily: each next one raises most the mean, over these source users, of the hypervolume that the
portfolio reaches as a share of what the user's own front reaches. It takes the place of half the
initial design, and space-filling points follow: a portfolio alone would teach a surrogate nothing
of what is bad.

A source user has seldom tried another's configuration. What it would have given is the posterior
mean of a Gaussian process on the user's own trials. The nearest configuration that was tried is no
substitute: among 2^L sets of layers it lies many layers away, and what was observed there is noisy
besides. What was tried is read from the process too, so that luck is not taken for merit.

It must not hurt. So each source user is left out once, and a portfolio is made from the others: the
design that begins with it has to reach more of the left-out user's front than the design alone, by
more than twice the standard error over users. Otherwise there is no portfolio, nor with fewer than
`FEWEST_SOURCES` users.

A dominated region is star-shaped as seen from the reference point, so its volume is the mean over
directions of its reach to the m-th power. So a table of one number for each user, configuration and
direction holds all that the greedy choice needs: the union of two regions reaches the farther of
two, and no hypervolume is worked out anew.

References: Wistuba, Schilling and Schmidt-Thieme 2015 (greedy portfolios); Golovin and Zhang 2020
(hypervolume by directions).

Notation: u users, c configurations, k directions, m objectives.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from search import surrogate
from search.design import Design
from search.pareto import Objective, front, oriented, reference_point
from search.samplers import Evidence
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

FEWEST_SOURCES = 4  # below it a standard error says nothing
LARGEST = 6  # configurations
CLEARLY = 2.0  # standard errors that the gain must exceed
DESIGNS = 8  # drawn to see what the design alone would reach
DIRECTIONS = 64
MODEL = "gp"  # that holds no layers alike: what `benchmarks/transfer.py` measured
KEPT = 64  # users whose processes are kept in memory: fitting one takes longer than all the rest

Array = NDArray[np.float64]


def portfolio(
    space: SearchSpace,
    objectives: Sequence[Objective],
    sources: Sequence[Evidence],
    design: Design,
) -> tuple[MemoryConfig, ...]:
    """What a new user is to try first, best first; nothing where that would not help for sure.

    Args:
        space: of the new user and of the sources.
        objectives: what the sources' values measure.
        sources: other users' studies.
        design: what the new user would begin with otherwise.
    """
    users = [u for s in sources if (u := _learned(space, tuple(objectives), s)) is not None]
    count = min(LARGEST, design.initial // 2)
    if len(users) < FEWEST_SOURCES or not count:
        return ()
    configs = list(dict.fromkeys(config for user in users for config in user.front))
    table = np.stack([user.shares(configs) for user in users])
    designs = [design.points(space, design.initial, seed) for seed in range(DESIGNS)]
    gains = np.array(
        [
            _gain(user, _without(i, users, configs, table, count), designs)
            for i, user in enumerate(users)
        ]
    )
    error = gains.std(ddof=1) / len(gains) ** 0.5
    if gains.mean() <= CLEARLY * error:
        return ()
    return tuple(configs[i] for i in _greedy(table, count))


class _User:
    """A source user, as far as their study shows."""

    def __init__(
        self, space: SearchSpace, objectives: Sequence[Objective], source: Evidence
    ) -> None:
        """Fits the user's process.

        Raises:
            FitError: the numbers would not have it.
        """
        usable = source.usable
        rows = [o.values for o in usable if o.values is not None]
        bases = [o.values for o in source.observations if o.config == BASE_CONFIG]
        corner = source.reference or reference_point(objectives, rows, next(iter(bases), None))
        tried = [o.config for o in usable]
        self._space = space
        self._fitted = surrogate.fit(MODEL, self._inputs(tried), oriented(objectives, rows), seed=0)
        self._corner = oriented(objectives, [corner])[0]
        means = self._means(tried)
        signs = oriented(objectives, [(1.0,) * len(objectives)])[0]
        self._span = np.maximum(means.max(0) - self._corner, 0)
        self.front = [tried[i] for i in front(objectives, (means * signs).tolist())]
        self.is_of_use = bool((self._span > 0).all())
        self._whole = self._reach(means).max(0).mean() if self.is_of_use else 1.0

    def shares(self, configs: Sequence[MemoryConfig]) -> Array:
        """`c x k`: their mean over k is what each reaches, as a share of the user's own front."""
        shares: Array = self._reach(self._means(configs)) / self._whole
        return shares

    def _inputs(self, configs: Sequence[MemoryConfig]) -> Array:
        return self._space.features(configs, derived=True)

    def _means(self, configs: Sequence[MemoryConfig]) -> Array:
        """`c x m`, where bigger is better."""
        with torch.no_grad():
            found = self._fitted.model.posterior(torch.as_tensor(self._inputs(configs))).mean
        means: Array = found.numpy() * self._fitted.scale + self._fitted.mean
        return means

    def _reach(self, means: Array) -> Array:
        """`c x k` reaches from the corner, to the m-th power."""
        above = np.maximum(means - self._corner, 0) / self._span
        directions = _directions(means.shape[1])
        reach: Array = (above[:, None] / directions).min(-1) ** means.shape[1]
        return reach


@functools.lru_cache(KEPT)
def _learned(
    space: SearchSpace, objectives: tuple[Objective, ...], source: Evidence
) -> _User | None:
    """The user; None where the study shows too little, or nothing above its reference point."""
    if not source.is_telling:
        return None
    try:
        user = _User(space, objectives, source)
    except surrogate.FitError:
        return None
    return user if user.is_of_use else None


def _directions(count: int) -> Array:
    """`k x m` directions of the positive orthant, evenly spread."""
    if count == 2:
        angles = (np.arange(DIRECTIONS) + 0.5) / DIRECTIONS * np.pi / 2
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    drawn = np.abs(np.random.default_rng(0).standard_normal((4 * DIRECTIONS, count)))
    directions: Array = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return directions


def _greedy(table: Array, count: int) -> list[int]:
    """Positions of at most `count` configurations of a `u x c x k` table, best first."""
    reached = np.zeros_like(table[:, :1])
    chosen: list[int] = []
    while len(chosen) < count:
        worth = np.maximum(table, reached).mean((0, 2)) - reached.mean()
        best = int(worth.argmax())
        if worth[best] <= 0:
            break
        chosen.append(best)
        reached = np.maximum(reached, table[:, [best]])
    return chosen


def _without(
    left_out: int, users: Sequence[_User], configs: Sequence[MemoryConfig], table: Array, count: int
) -> list[MemoryConfig]:
    """The portfolio that all users but one would advise."""
    others = [i for i in range(len(users)) if i != left_out]
    known = {config for i in others for config in users[i].front}
    places = [place for place, config in enumerate(configs) if config in known]
    return [configs[places[i]] for i in _greedy(table[np.ix_(others, places)], count)]


def _gain(
    user: _User, advised: Sequence[MemoryConfig], designs: Sequence[Sequence[MemoryConfig]]
) -> float:
    """What designs that begin with this advice reach more than those without, as a share."""
    gains = []
    for alone in designs:
        begun = [*advised, *alone[: len(alone) - len(advised)]]
        reached = [user.shares(configs).max(0).mean() for configs in (begun, alone)]
        gains.append(reached[0] - reached[1])
    return float(np.mean(gains))
