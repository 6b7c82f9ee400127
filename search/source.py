"""What one user's study shows about configurations that the user never tried.

What they would have given is the posterior mean of a Gaussian process on the user's own trials. The
nearest configuration that was tried is no substitute: among 2^L sets of layers it lies many layers
away, and what was observed there is noisy besides. What was tried is read from the process too, so
that luck is not taken for merit.

A dominated region is star-shaped as seen from the reference point, so its volume is the mean over
directions of its reach to the m-th power. So one number for each configuration and direction holds
all that a union of regions needs: it reaches the farthest of them, and no hypervolume is worked out
anew.

Reference: Golovin and Zhang 2020 (hypervolume by directions).

Notation: c configurations, k directions, m objectives.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from search import surrogate
from search.pareto import Objective, front, oriented, reference_point
from search.samplers import Evidence
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

DIRECTIONS = 64
MODEL = "gp"  # that holds no layers alike: what `benchmarks/transfer.py` measured
KEPT = 64  # users whose processes are kept in memory: fitting one takes longer than all the rest

Array = NDArray[np.float64]


class Source:
    """A user searched before, as far as their study shows."""

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
        means = self.means(tried)
        signs = oriented(objectives, [(1.0,) * len(objectives)])[0]
        self._span = np.maximum(means.max(0) - self._corner, 0)
        self.front = [tried[i] for i in front(objectives, (means * signs).tolist())]
        self.is_of_use = bool((self._span > 0).all())
        self._whole = self._reach(means).max(0).mean() if self.is_of_use else 1.0

    def shares(self, configs: Sequence[MemoryConfig]) -> Array:
        """`c x k`: their mean over k is what each reaches, as a share of the user's own front."""
        shares: Array = self._reach(self.means(configs)) / self._whole
        return shares

    def _inputs(self, configs: Sequence[MemoryConfig]) -> Array:
        return self._space.features(configs, derived=True)

    def means(self, configs: Sequence[MemoryConfig]) -> Array:
        """`c x m`, where bigger is better."""
        with torch.no_grad():
            found = self._fitted.model.posterior(torch.as_tensor(self._inputs(configs))).mean
        means: Array = found.numpy() * self._fitted.scale + self._fitted.mean
        return means

    def _reach(self, means: Array) -> Array:
        """`c x k` reaches from the corner, to the m-th power."""
        above = np.maximum(means - self._corner, 0) / self._span
        rays = directions(means.shape[1])
        reach: Array = (above[:, None] / rays).min(-1) ** means.shape[1]
        return reach


@functools.lru_cache(KEPT)
def learned(
    space: SearchSpace, objectives: tuple[Objective, ...], source: Evidence
) -> Source | None:
    """The user; None where the study shows too little, or nothing above its reference point."""
    if not source.is_telling:
        return None
    try:
        user = Source(space, objectives, source)
    except surrogate.FitError:
        return None
    return user if user.is_of_use else None


def directions(count: int) -> Array:
    """`k x m` directions of the positive orthant, evenly spread."""
    if count == 2:
        angles = (np.arange(DIRECTIONS) + 0.5) / DIRECTIONS * np.pi / 2
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    drawn = np.abs(np.random.default_rng(0).standard_normal((4 * DIRECTIONS, count)))
    found: Array = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return found
