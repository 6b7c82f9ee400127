"""What other users' studies advise a new user to try first: a portfolio.

A portfolio is a few configurations, each from the front of another user's finished study, chosen
greedily: each next one raises most the mean, over these source users, of the hypervolume that the
portfolio reaches as a share of what the user's own front reaches. It takes the place of half the
initial design at most, and space-filling points follow: a portfolio alone would teach a surrogate
nothing of what is bad.

A source user has seldom tried another's configuration. What it would have given is said by a model
of the user's own trials (`source`), as a table of one number for each user, configuration and
direction: so a greedy choice costs no hypervolumes.

It must not hurt. So each source user is left out once, and portfolios are made from the others: the
design that begins with one has to reach more of the left-out user's front than the design alone, by
more than chance would have it over users. Otherwise there is no portfolio, nor with fewer than
`FEWEST_SOURCES` users. Each point that is advised takes the place of one that would have taught the
surrogate what others could not know. So a portfolio is no longer than it has to be: of all lengths
the shortest that the best one does not exceed as clearly.

Users who were searched briefly agree on a learning rate that is nobody's best, and a surrogate that
has seen it alone believes them. So the first configuration of a portfolio comes again half a decade
above its learning rate, and the second half a decade below its own.

Reference: Wistuba, Schilling and Schmidt-Thieme 2015 (greedy portfolios).

Notation: u users, c configurations, k directions, m objectives.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from search.design import Design
from search.pareto import Objective
from search.samplers import Evidence
from search.source import Source, learned
from search.space import MemoryConfig, SearchSpace

FEWEST_SOURCES = 4  # below it a standard error says nothing
LARGEST = 6  # configurations
FACTORS = (10**0.5, 10**-0.5)  # on the learning rate of a portfolio's first, and its second's
CONFIDENCE = 0.975  # that a gain is one, by Student's t: few users vary by luck more than they show
DESIGNS = 8  # drawn to see what the design alone would reach

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
    users = [u for s in sources if (u := learned(space, tuple(objectives), s)) is not None]
    most = min(LARGEST, design.initial // 2)
    if len(users) < FEWEST_SOURCES or not most:
        return ()
    count = max(1, most - len(FACTORS)) if space.search_learning_rate else most
    configs = list(dict.fromkeys(config for user in users for config in user.front))
    table = np.stack([user.shares(configs) for user in users])
    designs = [design.points(space, design.initial, seed) for seed in range(DESIGNS)]
    gains = np.stack(
        [
            _gains(user, _without(i, users, configs, table, count), designs)
            for i, user in enumerate(users)
        ]
    )
    advised = [configs[i] for i in _greedy(table, _length(gains))]
    return tuple(dict.fromkeys([*advised, *_contrasts(space, advised)]))[:most]


def _contrasts(space: SearchSpace, advised: Sequence[MemoryConfig]) -> Iterator[MemoryConfig]:
    """The first at a higher learning rate, the second at a lower one, where the space has it."""
    for config, factor in zip(advised, FACTORS, strict=False):
        rate = _nearest(space.learning_rates, factor * config.learning_rate)
        if rate != config.learning_rate:
            yield replace(config, learning_rate=rate)


def _nearest(rates: Sequence[float], wanted: float) -> float:
    return min(rates, key=lambda rate: abs(math.log(rate / wanted)))


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
    left_out: int,
    users: Sequence[Source],
    configs: Sequence[MemoryConfig],
    table: Array,
    count: int,
) -> list[MemoryConfig]:
    """The portfolio that all users but one would advise."""
    others = [i for i in range(len(users)) if i != left_out]
    known = {config for i in others for config in users[i].front}
    places = [place for place, config in enumerate(configs) if config in known]
    return [configs[places[i]] for i in _greedy(table[np.ix_(others, places)], count)]


def _gains(
    user: Source, advised: Sequence[MemoryConfig], designs: Sequence[Sequence[MemoryConfig]]
) -> Array:
    """For 0, 1, 2, ... advised configurations: what it gains to begin with that many.

    That is how much more of the user's front a design reaches than the design alone.
    """
    first = np.stack([user.shares(alone) for alone in designs])  # designs x points x k
    best = user.shares(advised) if advised else np.zeros_like(first[0, :0])
    reached = []
    for length in range(LARGEST + 1):
        kept = first[:, : first.shape[1] - min(length, len(best))].max(1)
        carried = best[:length].max(0, initial=0.0)
        reached.append(np.maximum(kept, carried).mean())
    gains: Array = np.array(reached) - reached[0]
    return gains


def _length(gains: Array) -> int:
    """How many configurations to advise, of `u x n` gains by their number, beginning with 0."""
    best = int(gains.mean(0).argmax())
    return next(n for n in range(best + 1) if not _is_clear(gains[:, best] - gains[:, n]))


def _is_clear(differences: Array) -> bool:
    """Whether the mean over users exceeds nought by more than luck would have it."""
    users = len(differences)
    error = differences.std(ddof=1) / users**0.5
    return bool(differences.mean() > student.ppf(CONFIDENCE, users - 1) * error)
