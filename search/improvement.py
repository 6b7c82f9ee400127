"""How much hypervolume an untried configuration is expected to gain: NEHVI.

The noisy expected hypervolume improvement (Daulton et al. 2021): over the posterior of the
objectives at what was observed and is pending, the mean of the expected gain over their front. The
values observed are noisy, so their front is uncertain: it is drawn jointly, many times. Under each
draw a candidate's objectives are normal and independent of each other, and its expected gain is a
sum over the cells between the front and infinity, each in closed form (Yang et al. 2019).

BoTorch's qNEHVI draws the candidate as well, beside the whole baseline, once for each candidate;
that is right for gradients and slow on a lattice, where thousands of candidates share a baseline.
Here the baseline is factorised once. Since nothing is drawn for the candidate, the value is above
nought wherever there is anything to gain, so its logarithm (qLogNEHVI) would order candidates just
the same. It is maximised: the minus sign in MiLP's equation 4 is a slip, as is its reference point
of best-known values, which would leave nothing to gain.

Notation: n rows of a baseline, c candidates, d columns, m objectives; M members of an ensemble (1
where there is one process), S draws of each, K cells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from botorch.utils.multi_objective.box_decompositions.box_decomposition_list import (
    BoxDecompositionList,
)
from botorch.utils.multi_objective.box_decompositions.non_dominated import (
    FastNondominatedPartitioning,
)
from botorch.utils.multi_objective.pareto import is_non_dominated
from botorch.utils.probability.utils import ndtr, phi
from botorch.utils.sampling import draw_sobol_normal_samples
from linear_operator.utils.cholesky import psd_safe_cholesky
from numpy.typing import NDArray
from torch import Tensor

from search.surrogate import Surrogate

DRAWS = 128  # of the baseline, over all members
FEWEST_DRAWS = 32  # of each member
CHUNK = 256  # candidates valued at once
SMALLEST_VARIANCE = 1e-12

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Known:
    """A fitted process, ready to be asked about a candidate: its trials, factorised once.

    NOTE: BoTorch's posterior gives the covariances of candidates among themselves too, which are
    most of its cost and not needed here.
    """

    model: Any
    X: Tensor  # M x N x d, the trials it was fitted to
    root: Tensor  # M x N x N, lower triangular, of their covariance with noise
    residual: Tensor  # M x N x 1, standardised

    @classmethod
    def of(cls, model: Any) -> "_Known":
        """What a process of BoTorch's knows."""
        X, y = model.train_inputs[0], model.train_targets
        covariance = model.covar_module(X).to_dense()
        noise = model.likelihood.noise[..., None] * torch.eye(X.shape[-2], dtype=X.dtype)
        root = _batched(psd_safe_cholesky(covariance + noise))
        centred = _batched((y - model.mean_module(X))[..., None])
        residual = torch.linalg.solve_triangular(root, centred, upper=False)
        return cls(model, _batched(X), root, residual)

    def across(self, X: Tensor) -> Tensor:
        """`M x N x c`: what the trials say of rows `c x d`, as standard numbers."""
        between = _batched(self.model.covar_module(self.X, X[None]).to_dense())
        found: Tensor = torch.linalg.solve_triangular(self.root, between, upper=False)
        return found


@dataclass(frozen=True)
class _Baseline:
    """One objective at the baseline: what candidates are conditioned on."""

    known: _Known
    X: Tensor  # n x d
    across: Tensor  # M x N x n
    root: Tensor  # M x n x n, lower triangular
    standard: Tensor  # M x n x S, the draws as standard normal numbers


def expected_improvement(
    surrogate: Surrogate,
    X: Array,
    X_pending: Array,
    reference: Array,
    seed: int,
    draws: int = DRAWS,
) -> Callable[[Array], Array]:
    """NEHVI, as a function from `c x d` candidates to their `c` values.

    Args:
        surrogate: fitted to the observations at `X`.
        X: `n x d`, what was observed.
        X_pending: `p x d`, what is asked and not told.
        reference: `m`, where bigger is better, in the objectives' own scale.
        seed: of the draws.
        draws: how many of the baseline, over all members; of each at least `FEWEST_DRAWS`, or
            so many if that is fewer. The cost is in proportion.
    """
    corner = surrogate.standardised(reference)
    rows = torch.as_tensor(np.concatenate([X, X_pending]))
    with torch.no_grad():
        drawn, baselines = _drawn(surrogate, rows, corner, seed, draws)
        cells = _cells(drawn, corner)

    def values(candidates: Array) -> Array:
        with torch.no_grad():
            chunks = torch.split(torch.as_tensor(candidates), CHUNK)
            found: Array = torch.cat([_gain(baselines, cells, c) for c in chunks]).numpy()
        return np.nan_to_num(found, nan=-np.inf)

    return values


def _drawn(
    surrogate: Surrogate, X: Tensor, corner: Tensor, seed: int, draws: int
) -> tuple[Tensor, list[_Baseline]]:
    """`M x S x n x m` joint draws at the rows that are on the front in any, and their baselines."""
    posteriors = [_moments(model, X) for model in surrogate.model.models]
    members = max(len(mean) for mean, _ in posteriors)
    count = max(min(FEWEST_DRAWS, draws), draws // members)
    normal = draw_sobol_normal_samples(len(X) * len(posteriors), count, seed=seed, dtype=X.dtype)
    numbers = normal.reshape(count, len(posteriors), len(X)).permute(1, 2, 0)  # m x n x S
    drawn = torch.stack(
        [mean[..., None] + psd_safe_cholesky(covariance) @ z
         for (mean, covariance), z in zip(posteriors, numbers, strict=True)], dim=-1,
    ).transpose(1, 2)  # fmt: skip
    kept = (is_non_dominated(drawn) & (drawn > corner).all(-1)).flatten(0, 1).any(0)
    baselines = []
    for j, (mean, covariance) in enumerate(posteriors):
        root = psd_safe_cholesky(covariance[:, kept][:, :, kept])
        centred = drawn[:, :, kept, j].transpose(1, 2) - mean[:, kept, None]
        standard = torch.linalg.solve_triangular(root, centred, upper=False)
        known = _Known.of(surrogate.model.models[j])
        baselines.append(_Baseline(known, X[kept], known.across(X[kept]), root, standard))
    return drawn[:, :, kept], baselines


def _moments(model: object, X: Tensor) -> tuple[Tensor, Tensor]:
    """`M x n` means and `M x n x n` covariances of one objective's posterior."""
    distribution = model.posterior(X).distribution  # type: ignore[attr-defined]
    mean, covariance = distribution.mean, distribution.covariance_matrix
    return mean.reshape(-1, len(X)), covariance.reshape(-1, len(X), len(X))


def _batched(found: Tensor) -> Tensor:
    """`M x n x c`; a single process' matrix gets its `M` of 1."""
    return found if found.dim() == 3 else found[None]


def _cells(drawn: Tensor, corner: Tensor) -> Tensor:
    """`2 x M x S x K x m` lower and upper corners of the cells that no draw dominates."""
    fronts = drawn.flatten(0, 1)
    if drawn.shape[-1] == 2 and drawn.shape[-2]:
        bounds = FastNondominatedPartitioning(corner, fronts).get_hypercell_bounds()
    else:
        every = (FastNondominatedPartitioning(corner, front) for front in fronts)
        bounds = BoxDecompositionList(*every).get_hypercell_bounds()
    found: Tensor = bounds.reshape(2, *drawn.shape[:2], *bounds.shape[-2:])
    return found


def _gain(baselines: list[_Baseline], cells: Tensor, candidates: Tensor) -> Tensor:
    """`c` expected gains, over the draws and the members."""
    volumes = torch.ones((), dtype=candidates.dtype)
    for j, baseline in enumerate(baselines):
        mean, deviation = _conditional(baseline, candidates)
        lower, upper = (bound[:, :, None, :, j] for bound in cells)  # M x S x 1 x K
        above = [_excess(mean, deviation, bound) for bound in (lower, upper)]
        volumes = volumes * (above[0] - above[1])
    return volumes.sum(-1).mean((0, 1))


def _conditional(baseline: _Baseline, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """`M x S x c x 1` means and `M x 1 x c x 1` deviations, given each draw of the baseline."""
    known, kernel = baseline.known, baseline.known.model.covar_module
    across = known.across(candidates)  # M x N x c
    mean = known.model.mean_module(candidates) + (across * known.residual).sum(1)
    between = kernel(baseline.X[None], candidates[None]).to_dense()
    weights = torch.linalg.solve_triangular(
        baseline.root, between - baseline.across.transpose(1, 2) @ across, upper=False
    )  # M x n x c
    variance = kernel(candidates[None], diag=True) - across.square().sum(1)
    variance = variance - weights.square().sum(1)
    moved = mean[:, None] + torch.einsum("mnc,mns->msc", weights, baseline.standard)
    deviation = variance.clamp_min(SMALLEST_VARIANCE).sqrt()
    return moved[..., None], deviation[:, None, :, None]


def _excess(mean: Tensor, deviation: Tensor, bound: Tensor) -> Tensor:
    """The expected height of a normal number above a bound; nought above infinity."""
    z = (mean - bound) / deviation
    height = deviation * (phi(z) + z * ndtr(z))
    return torch.where(bound.isinf(), 0.0, height)
