"""A surrogate that begins with what other users' studies lead one to expect; measured, not used.

What is expected of a configuration is the mean, over users searched before, of the posterior mean
of each one's own process, in standard scores; at configurations that none of them tried, what a
process through these means says. To a new user that is the prior mean of the new user's own
process, times a slope fitted to the new user's trials: so what is learned is how this user differs.

It is gated by held-out fit, objective by objective and anew at every fit. Of each completed trial
the log density is taken under the process of the others, with this prior mean and without; with it
they have to be higher on average, by more than one standard error. Otherwise the process is that of
`gp`.

`benchmarks.transfer --pooled` measures it. On six made-up users of 16 layers, related 0.9 to six
others with 30 trials each, beside a portfolio of four: +.009 [-.025, .052] at 20 trials, -.009
[-.036, .017] at 30, -.022 [-.053, .002] at 50, area -.001 [-.018, .016], for 1.4 times the
asking. So it is left here.

References: Feurer et al. 2018 (ensembles of users' processes); Sundararajan and Keerthi 2001
(densities held out, in closed form).

Notation: n trials, d columns, m objectives, c configurations of other users.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from botorch.models import ModelListGP, SingleTaskGP
from gpytorch.kernels import Kernel, ScaleKernel
from gpytorch.means import Mean
from gpytorch.models import ExactGP
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.searches import OBJECTIVES, Contender
from search import surrogate
from search.bayesian import SurrogateSampler
from search.design import Design
from search.kernels import layered
from search.samplers import Evidence, Sampler
from search.source import learned
from search.space import SearchSpace
from search.surrogate import TOLERANCE, Surrogate, fit_each, most_likely

LARGEST = 192  # configurations at which users are averaged: a fit of seconds, once for all users
CLEARLY = 1.0  # standard errors by which held-out densities must be higher
RIDGE = 1.0  # on the slope, in trials whose expectation lies one standard score off the mean

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One objective's expectation: a kernel's sum over the configurations that it rests on."""

    kernel: Kernel
    X: Tensor  # c x d
    weights: Tensor  # c
    constant: float
    scale: float
    mean: float

    def __call__(self, X: Tensor) -> Tensor:
        """`n` standard scores of `n x d` inputs."""
        with torch.no_grad():
            found: Tensor = self.kernel(X.detach(), self.X).to_dense() @ self.weights
        scores: Tensor = (found + self.constant) * self.scale + self.mean
        return scores


def expectation(space: SearchSpace, sources: Sequence[Evidence]) -> tuple[Part, ...]:
    """What users searched before lead one to expect, for each objective; nothing of nobody."""
    users = [u for s in sources if (u := learned(space, OBJECTIVES, s)) is not None]
    tried = list(dict.fromkeys(o.config for s in sources for o in s.usable))
    if not users:
        return ()
    kept = sorted(np.random.default_rng(0).permutation(len(tried))[:LARGEST])
    configs = [tried[i] for i in kept]
    scores = np.mean([_standardised(user.means(configs)) for user in users], axis=0)
    X = space.features(configs, derived=True)
    fitted = surrogate.fit("gp", X, scores, seed=0, layers=space.layer_count)
    return tuple(_part(fitted, j) for j in range(len(OBJECTIVES)))


def _standardised(means: Array) -> Array:
    scores: Array = (means - means.mean(0)) / means.std(0)
    return scores


def _part(fitted: Surrogate, j: int) -> Part:
    model = fitted.model.models[j]
    (X,) = model.train_inputs
    constant = model.mean_module.constant.detach()
    with torch.no_grad():
        weights = torch.linalg.solve(_covariance(model), model.train_targets - constant)
    scale, mean = float(fitted.scale[j]), float(fitted.mean[j])
    return Part(model.covar_module, X, weights, float(constant), scale, mean)


class Expected(Mean):  # type: ignore[misc]
    """A constant that is learned, and a fixed share of what is expected."""

    def __init__(self, part: Part, slope: float) -> None:
        super().__init__()
        self.part, self.slope = part, slope
        start = torch.zeros((), dtype=torch.float64)
        self.register_parameter("constant", torch.nn.Parameter(start))

    def forward(self, X: Tensor) -> Tensor:
        """`n` prior means of `n x d` inputs."""
        means: Tensor = self.constant + self.slope * self.part(X)
        return means


def fit(
    parts: Sequence[Part], name: str, X: Array, Y: Array, seed: int, layers: int = 0
) -> Surrogate:
    """`gp`, or where it is clearly better the same on what differs; see `search.surrogate.fit`.

    A layer's bits have to be among the columns: made-up users' spaces search them.
    """
    found = [
        fit_each(name, functools.partial(_process, part, layers), X, Y[:, [j]], seed)
        for j, part in enumerate(parts)
    ]
    mean, scale = (np.concatenate([getattr(one, of) for one in found]) for of in ("mean", "scale"))
    return Surrogate(ModelListGP(*(one.model.models[0] for one in found)), mean, scale)


def _process(part: Part, layers: int, X: Tensor, y: Tensor, seed: int) -> ExactGP:
    kernel = layered(X.shape[1], layers)
    alone = _fitted(SingleTaskGP(X, y, outcome_transform=None, covar_module=kernel))
    slope, left = _regressed(part(X).numpy(), y[:, 0].numpy())
    if not slope:
        return alone
    kernel = ScaleKernel(layered(X.shape[1], layers))
    kernel.outputscale = left
    kernel.raw_outputscale.requires_grad_(False)
    mean = Expected(part, slope)
    differing = _fitted(
        SingleTaskGP(X, y, outcome_transform=None, covar_module=kernel, mean_module=mean)
    )
    gain = held_out(differing) - held_out(alone)
    error = gain.std(ddof=1) / math.sqrt(len(gain))
    return differing if gain.mean() > CLEARLY * error else alone


def _fitted(model: ExactGP) -> ExactGP:
    return most_likely(model, {"ftol": TOLERANCE})


def _regressed(expected: Array, outcomes: Array) -> tuple[float, float]:
    """The slope of outcomes on what was expected, not below nought; the variance it leaves."""
    centred = expected - expected.mean()
    slope = max(0.0, float(centred @ outcomes) / (float(centred @ centred) + RIDGE))
    return slope, float(np.var(outcomes - slope * centred))


def held_out(model: ExactGP) -> Array:
    """`n` log densities of a process's outcomes, each under the process of all others."""
    with torch.no_grad():
        (X,) = model.train_inputs
        inverse = torch.linalg.inv(_covariance(model))
        precision = inverse.diagonal()
        away = inverse @ (model.train_targets - model.mean_module(X)) / precision
        found: Array = (0.5 * (torch.log(precision / (2 * math.pi)) - away**2 * precision)).numpy()
    return found


def _covariance(model: ExactGP) -> Tensor:
    """`n x n`, of noisy outcomes."""
    (X,) = model.train_inputs
    noise = model.likelihood.noise.detach() * torch.eye(len(X), dtype=X.dtype)
    found: Tensor = model.covar_module(X).to_dense() + noise
    return found


@dataclass(frozen=True)
class Pooled(Contender):
    """`gp` with expectations."""

    parts: tuple[Part, ...] = ()

    def sampler(self) -> Sampler:
        """`gp`, with another process."""
        design = Design(self.settings.design, self.settings.initial)
        return SurrogateSampler("gp", design, functools.partial(fit, self.parts))
