"""Compares what a surrogate may see and what it holds for alike; the losers are kept here.

    python -m benchmarks.surrogates --out FOLDER [--layers 16] [--users 6] [--trials 60]
        [--variants NAME ...] [--processes N]

All are Gaussian processes, fitted and used as `gp` is; they differ in inputs and kernel:

size        a bit for each layer, count, log2 of the rank, place of the rate, and log2 of the
            trainable parameters, under a squared exponential
plain       the same without the parameters
matern      as size, with a Matern-5/2 kernel
one-scale   as size, all layers with one length scale: sets are alike as they differ in few layers
hamming     as one-scale, but falling exponentially with the share of the layers that differ
smooth      as size, each bit smeared over its neighbours: adjacent layers are alike
smooth-one  as one-scale, of smeared bits
own         as one-scale, and each layer may matter more than that: `gp` itself
smooth-own  as own, of smeared bits
additive    as size, and a linear part of smeared bits: each layer adds something of its own

With four users more, `own` lies .024 [.009, .038] above `size`, `smooth-own` .027 [-.001, .059]; so
`own` was taken. What all reached on six unrelated users of 16 layers from one seed, as mean shares
of the true hypervolume; the area under the curve to 60 trials, and how far it lies above that of
`size`, with the 95 % interval over users. Six users settle little between the better ones.
`smooth-one` and `additive` were only fitted, not searched with; the latter takes three times as
long.

                20    30    40    60   area   above size
    size       .58   .76   .85   .94   .693
    own        .64   .80   .89   .97   .724    .031 [ .011, .051]
    smooth-own .67   .85   .89   .95   .728    .035 [-.013, .085]
    hamming    .67   .81   .87   .95   .718    .025 [-.015, .075]
    one-scale  .65   .82   .86   .94   .714    .021 [-.015, .059]
    smooth     .59   .80   .88   .94   .706    .013 [-.020, .048]
    matern     .59   .75   .86   .93   .688   -.005 [-.021, .010]
    plain      .57   .74   .85   .93   .682   -.011 [-.023, .002]
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from botorch.models import SingleTaskGP
from botorch.models.kernels import CategoricalKernel
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel, LinearKernel, ScaleKernel
from gpytorch.models import ExactGP
from gpytorch.priors import GammaPrior, LogNormalPrior
from torch import Tensor

from benchmarks.cohorts import Cohort, Extent, made_up
from benchmarks.samplers import compare
from benchmarks.searches import Contender
from search.bayesian import SurrogateSampler
from search.design import Design
from search.kernels import SHORTEST, layered, one_scale
from search.samplers import Sampler, SamplerSettings, initial_count
from search.surrogate import TOLERANCE, Array, Surrogate, fit_each, most_likely

REACH = 1.0  # layers over which a bit is smeared
REST = 4  # columns after the bits: count, rank, rate, parameters


def _all(columns: int) -> Kernel:
    return get_covar_module_with_dim_scaled_prior(columns)


def _plain(columns: int) -> Kernel:
    return get_covar_module_with_dim_scaled_prior(
        columns - 1, active_dims=tuple(range(columns - 1))
    )


def _matern(columns: int) -> Kernel:
    return get_covar_module_with_dim_scaled_prior(columns, use_rbf_kernel=False)


def _one_scale(columns: int) -> Kernel:
    return one_scale(columns, columns - REST)


def _own(columns: int) -> Kernel:
    return layered(columns, columns - REST)


def _hamming(columns: int) -> Kernel:
    return CategoricalKernel(**_layers_alone(columns)) * _rest(columns)


def _additive(columns: int) -> Kernel:
    layers = LinearKernel(active_dims=tuple(range(columns - REST)))
    layers.raw_variance.requires_grad_(False)  # the scale around it is one already
    part = ScaleKernel(layers, outputscale_prior=GammaPrior(2.0, 4.0))
    return ScaleKernel(_all(columns), outputscale_prior=GammaPrior(2.0, 2.0)) + part


def _layers_alone(columns: int) -> dict[str, object]:
    """One length scale for all bits, with the prior that each would have of its own."""
    prior = LogNormalPrior(math.sqrt(2) + 0.5 * math.log(columns), math.sqrt(3))
    floor = GreaterThan(SHORTEST, transform=None, initial_value=prior.mode)
    bits = tuple(range(columns - REST))
    return {"active_dims": bits, "lengthscale_prior": prior, "lengthscale_constraint": floor}


def _rest(columns: int) -> Kernel:
    others = tuple(range(columns - REST, columns))
    return get_covar_module_with_dim_scaled_prior(REST, active_dims=others)


class Smeared(torch.nn.Module):
    """Each bit spread over its neighbours, of the same length; the other columns as they are."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        places = torch.arange(columns - REST, dtype=torch.float64)
        near = torch.exp(-(((places[:, None] - places) / REACH) ** 2))
        self.near = near / near.square().sum(0).sqrt()

    def forward(self, X: Tensor) -> Tensor:
        """`n x d` of `n x d`."""
        bits, others = X[..., :-REST], X[..., -REST:]
        return torch.cat([bits @ self.near, others], dim=-1)


VARIANTS: Mapping[str, tuple[Callable[[int], Kernel], bool]] = {
    # kernel by number of columns, and whether bits are smeared
    "size": (_all, False),
    "plain": (_plain, False),
    "matern": (_matern, False),
    "one-scale": (_one_scale, False),
    "hamming": (_hamming, False),
    "smooth": (_all, True),
    "smooth-one": (_one_scale, True),
    "own": (_own, False),
    "smooth-own": (_own, True),
    "additive": (_additive, True),
}


class SmearedGP(SingleTaskGP):  # type: ignore[misc]
    """A plain process of smeared bits."""

    def __init__(self, X: Tensor, y: Tensor, kernel: Kernel) -> None:
        super().__init__(X, y, outcome_transform=None, covar_module=kernel)
        self.smeared = Smeared(X.shape[-1])

    def forward(self, x: Tensor) -> object:
        """Of inputs as they are encoded."""
        return super().forward(self.smeared(x))


def process(variant: str, X: Tensor, y: Tensor, seed: int) -> ExactGP:
    """A variant's process for one objective; see `search.surrogate.Process`."""
    kernel, smears = VARIANTS[variant]
    made = kernel(X.shape[1])
    if smears:
        model = SmearedGP(X, y, made)
    else:
        model = SingleTaskGP(X, y, outcome_transform=None, covar_module=made)
    return most_likely(model, {"ftol": TOLERANCE})


def fit(variant: str, name: str, X: Array, Y: Array, seed: int, layers: int = 0) -> Surrogate:
    """A variant's surrogate; see `search.surrogate.fit`. Its kernel knows the layers itself."""
    return fit_each(name, functools.partial(process, variant), X, Y, seed)


@dataclass(frozen=True)
class Variant(Contender):
    """A contender whose name is its variant's."""

    def sampler(self) -> Sampler:
        """`gp`, with another process."""
        design = Design(self.settings.design, self.settings.initial)
        return SurrogateSampler("gp", design, functools.partial(fit, self.name))


def cohort(layers: int, names: Sequence[str], extent: Extent) -> Cohort:
    """Made-up users, searched by variants; the first is what the others are compared with."""
    settings = SamplerSettings("gp", initial_count(extent.trials))
    variants = tuple(Variant(name, settings, extent.trials) for name in names)
    users = made_up(layers, [], extent, note=", surrogates")
    return Cohort(users.title, users.problems, variants, extent.seeds, names[0])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args(arguments)
    extent = Extent(given.users, given.seeds, given.trials)
    compare([cohort(given.layers, given.variants, extent)], given.out, given.processes)


if __name__ == "__main__":
    main()
