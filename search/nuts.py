"""SAAS by NUTS: a sparse Gaussian process whose hyper-parameters are drawn, not fitted.

The paper's surrogate (its "log-Normal kernel" is none: log-normal is a prior of SAASBO's; the
kernel is a Matern-5/2). Priors, kernel and the process that predicts are BoTorch's own; only the
drawing is done here, in float64, with AutoPEFT's settings: 128 steps of warm-up, 64 samples, every
fourth kept.

BoTorch's own loop compiles anew at every fit, since the data are constants of its program; that is
most of its time. Here they are arguments, padded to a multiple of 32 rows, so a study of 200 trials
compiles a handful of times. Padding leaves the posterior exact: a padded row is an independent
standard normal observed at its mean, whatever the hyper-parameters, so it adds a constant to the
log likelihood and nothing to its gradient. JAX keeps what it compiled in a folder, which therefore
holds no user's data.

Needs `milpa[nuts]`: JAX and NumPyro.

References: Eriksson and Jankowiak 2021 (SAAS); Hoffman and Gelman 2014 (NUTS); AutoPEFT (arXiv
2301.12132); MiLP (arXiv 2404.03565).

Notation: n trials, N rows after padding, d columns.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from botorch.models.fully_bayesian import (
    SaasFullyBayesianSingleTaskGP,
    SaasPyroModel,
    matern52_kernel,
)
from numpyro import distributions
from numpyro.infer import MCMC, NUTS
from torch import Tensor

WARM_UP = 128
SAMPLES = 64
THINNING = 4
TREE_DEPTH = 6  # BoTorch's
ROWS = 32  # n is padded to a multiple of this
# A chain's course depends on the last bit of every sum. So that all machines propose the same: one
# thread, and no instructions that only some processors have, which also lets hosts share what was
# compiled. It costs no time, and askers run beside training anyway.
SAME_EVERYWHERE = "--xla_cpu_multi_thread_eigen=false --xla_cpu_max_isa=AVX2"


def fitted(X: Tensor, y: Tensor, seed: int) -> SaasFullyBayesianSingleTaskGP:
    """BoTorch's SAAS process of 16 hyper-samples, ready to predict.

    Args:
        X: `n x d`, in [0, 1].
        y: `n x 1`, standardised.
        seed: of the chain.

    Raises:
        RuntimeError: the chain found no finite density.
    """
    rows, values, real = padded(X.numpy(), y.numpy()[:, 0])
    with jax.enable_x64(True):
        samples, energy = _draw(jax.random.PRNGKey(seed), rows, values, real)
        if not np.isfinite(energy).all():
            raise RuntimeError("NUTS found no finite density to start from")
        model = SaasFullyBayesianSingleTaskGP(X, y)
        kept = model.pyro_model.postprocess_mcmc_samples(dict(samples))
    model.load_mcmc_samples({name: drawn[::THINNING] for name, drawn in kept.items()})
    return model.eval()


def padded(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`N x d` rows and `N` values, the last ones zero, and which of them are real."""
    missing = -len(X) % ROWS
    rows = np.pad(X.astype(np.float64), ((0, missing), (0, 0)))
    values = np.pad(y.astype(np.float64), (0, missing))
    return rows, values, np.arange(len(rows)) < len(X)


def sparse_process(X: jax.Array, y: jax.Array, real: jax.Array) -> None:
    """The probabilistic program: BoTorch's priors, a Matern-5/2 kernel, and padded rows.

    Args:
        X: `N x d`.
        y: `N`, zero where a row is not real.
        real: `N`, whether a row is an observation.
    """
    prior = SaasPyroModel()
    prior.train_Yvar_jax = None  # the noise is not known
    variance = prior.sample_outputscale(
        prior._outputscale_prior_concentration, prior._outputscale_prior_rate
    )
    mean, noise = prior.sample_mean(), prior.sample_noise()
    lengthscale = prior.sample_lengthscale(X.shape[1])
    identity = jnp.eye(len(y))
    covariance = variance * matern52_kernel(X, lengthscale) + noise * identity
    numpyro.sample(
        "Y",
        distributions.MultivariateNormal(
            jnp.where(real, mean, 0.0),
            covariance_matrix=jnp.where(real[:, None] & real, covariance, identity),
        ),
        obs=y,
    )


@jax.jit
def _draw(
    key: jax.Array, X: jax.Array, y: jax.Array, real: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
    """A chain's samples, before thinning, and their energies; compiled for each shape once."""
    kernel = NUTS(sparse_process, dense_mass=True, max_tree_depth=TREE_DEPTH)
    chain = MCMC(kernel, num_warmup=WARM_UP, num_samples=SAMPLES, progress_bar=False)
    chain.run(key, X, y, real, extra_fields=("potential_energy",))
    return chain.get_samples(), chain.get_extra_fields()["potential_energy"]


def _prepare() -> None:
    """Tells JAX how to compile, before its backend starts, and where to keep what it compiled."""
    os.environ["XLA_FLAGS"] = f"{SAME_EVERYWHERE} {os.environ.get('XLA_FLAGS', '')}".strip()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        folder = str(Path(root) / "milpa" / "jax")
        jax.config.update("jax_compilation_cache_dir", folder)  # type: ignore[no-untyped-call]


_prepare()
