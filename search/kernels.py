"""How alike two configurations are held to be: the kernel of `gp`.

The first columns of an input are bits, one for each layer. Most layers of a model matter about as
much as each other, and a few more than that; a length scale for each, learned from twenty trials,
tells the two badly. So the kernel is a product: one squared exponential with a single length scale
for all layers, one with a scale for each, and the usual one for the other columns. Inverse squares
of the scales add up: each layer's relevance is what all share and what it has of its own.

Chosen among ten by `benchmarks/surrogates.py`, which keeps the losers' figures. Priors are scaled
by the number of columns, as in Hvarfner et al. 2024; that of a layer's own part is narrower.

Notation: d columns.
"""

import math

from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel, RBFKernel
from gpytorch.priors import LogNormalPrior

SHORTEST = 0.025  # length scale, as BoTorch's
WIDE, NARROW = math.sqrt(3), 1.0  # of the priors, in logarithms


def layered(columns: int, layers: int) -> Kernel:
    """The kernel of `d` columns, of which the first `layers` are bits of layers."""
    places = tuple(range(layers))
    own = RBFKernel(ard_num_dims=layers, active_dims=places, **_prior(columns, NARROW))
    return own * one_scale(columns, layers)


def one_scale(columns: int, layers: int) -> Kernel:
    """One length scale for all layers, one for each other column."""
    shared = RBFKernel(active_dims=tuple(range(layers)), **_prior(columns, WIDE))
    others = tuple(range(layers, columns))
    if not others:
        return shared
    return shared * get_covar_module_with_dim_scaled_prior(len(others), active_dims=others)


def _prior(columns: int, width: float) -> dict[str, object]:
    prior = LogNormalPrior(math.sqrt(2) + 0.5 * math.log(columns), width)
    floor = GreaterThan(SHORTEST, transform=None, initial_value=prior.mode)
    return {"lengthscale_prior": prior, "lengthscale_constraint": floor}
