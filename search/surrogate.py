"""Gaussian processes that say what an untried configuration would score, and how surely.

It sees numbers alone: `X` in the unit cube, `Y` where bigger is better. One process per objective,
float64, outcomes standardised at each fit, and every random number drawn from the seed.

Three surrogates. `gp`: one process with dimension-scaled priors (Hvarfner et al. 2024) that holds
layers alike until the data say otherwise (`kernels`), meant for inputs with the derived columns.
`saas`: processes whose sparsity priors hold most columns irrelevant until the data say otherwise
(Eriksson and Jankowiak 2021), their hyper-parameters drawn by NUTS: the paper's, in `nuts`.
`map-saas`: four such processes, each fitted by maximum a posteriori at its own strength of
shrinkage, for a fraction of the cost of NUTS.

One diverged training would stretch the scale until all other trials look alike. So values far on
the bad side are pulled in to Tukey's outer fence; good ones never are.

Notation: n trials, d columns, m objectives.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from botorch.exceptions import BotorchError, ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP, SingleTaskGP
from botorch.models.map_saas import EnsembleMapSaasSingleTaskGP
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.models import ExactGP
from numpy.typing import NDArray
from torch import Tensor

from search.kernels import layered

NAMES = ("gp", "map-saas", "saas")
TAUS = 4
TOLERANCE = 1e-6  # of the log likelihood a trial: half the time or less, the same predictions
FENCE = 3.0  # interquartile ranges below the lower quartile: Tukey's outer fence
# Torch reports most numerical trouble (not-a-number, a singular matrix) as a RuntimeError.
NUMERICAL_ERRORS = (BotorchError, ModelFittingError, RuntimeError)

Array = NDArray[np.float64]


class FitError(RuntimeError):
    """A surrogate could not be fitted, or gave no number where it was asked."""


@dataclass(frozen=True)
class Surrogate:
    """A fitted process per objective, and the scale that its outcomes are standardised to."""

    model: ModelListGP
    mean: Array  # m
    scale: Array  # m

    def standardised(self, Y: Array) -> Tensor:
        """Outcomes on the scale of the processes."""
        return torch.as_tensor((Y - self.mean) / self.scale)


class Fit(Protocol):
    """`fit`, or what takes its place."""

    def __call__(self, name: str, X: Array, Y: Array, seed: int, layers: int = 0) -> Surrogate:
        """See `fit`."""


Process = Callable[[Tensor, Tensor, int], ExactGP]  # n x d, n x 1, seed


def fit(name: str, X: Array, Y: Array, seed: int, layers: int = 0) -> Surrogate:
    """The surrogate called `name`, fitted to finite observations.

    Args:
        name: one of `NAMES`.
        X: `n x d`, in [0, 1].
        Y: `n x m`, bigger is better, finite.
        seed: of everything drawn.
        layers: how many of the first columns are bits of layers; only `gp` makes a difference.

    Raises:
        FitError: the numbers would not have it.
        ValueError: no surrogate has this name.
    """
    if name not in NAMES:
        raise ValueError(f"expected a surrogate of {', '.join(NAMES)}, got {name!r}")
    return fit_each(name, functools.partial(_fitted, name, layers), X, Y, seed)


def fit_each(name: str, process: Process, X: Array, Y: Array, seed: int) -> Surrogate:
    """A process for each objective, fitted to its standardised outcomes; see `fit`."""
    fenced = pull_in(Y)
    mean, scale = fenced.mean(0), fenced.std(0, ddof=1)
    scale = np.where(scale > 1e-12 * np.maximum(1.0, np.abs(mean)), scale, 1.0)
    inputs, outcomes = torch.as_tensor(X), torch.as_tensor((fenced - mean) / scale)
    with own_randomness(seed):
        try:
            models = [process(inputs, outcomes[:, [j]], seed) for j in range(Y.shape[1])]
        except NUMERICAL_ERRORS as error:
            raise FitError(f"{name} on {len(X)} trials: {error}") from error
    return Surrogate(ModelListGP(*models), mean, scale)


def pull_in(Y: Array) -> Array:
    """`Y` with each column's bad outliers moved up to its outer fence."""
    low, high = np.quantile(Y, [0.25, 0.75], axis=0)
    fence = np.where(high > low, low - FENCE * (high - low), -np.inf)
    return np.maximum(Y, fence)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Inside, torch's global generator is this seed's; outside, nothing has changed.

    NOTE: botorch draws from the global generator in places, pruning the baseline among them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _fitted(name: str, layers: int, X: Tensor, y: Tensor, seed: int) -> ExactGP:
    if name == "saas":
        from search import nuts  # needs JAX

        return nuts.fitted(X, y, seed)
    if name == "gp":
        kernel = layered(X.shape[1], layers) if layers else None
        model = SingleTaskGP(X, y, outcome_transform=None, covar_module=kernel)
        return most_likely(model, {"ftol": TOLERANCE})
    model = EnsembleMapSaasSingleTaskGP(
        X, y, num_taus=TAUS, taus=_taus(seed), outcome_transform=None
    )
    # BoTorch's batched L-BFGS-B has its tolerance as `factr` already, in machine epsilons as in
    # SciPy's older interface, and refuses `ftol` beside that.
    return most_likely(model, {"ftol": TOLERANCE, "factr": None})


def most_likely(model: ExactGP, options: Mapping[str, float | None]) -> ExactGP:
    """The process at its most probable hyper-parameters."""
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": dict(options)})
    return model


def _taus(seed: int) -> Tensor:
    """Strengths of shrinkage from their prior, a half-Cauchy of scale 0.1."""
    uniform = torch.rand(TAUS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.1 * torch.tan(uniform * torch.pi / 2)
