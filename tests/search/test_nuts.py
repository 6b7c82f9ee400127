"""SAAS by NUTS: padding changes nothing, programs are kept, the memory stays flat."""

import resource
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP
from jax.experimental.compilation_cache import compilation_cache
from numpyro.infer.util import potential_energy

from search import nuts
from search.pareto import oriented
from search.surrogate import FitError, fit
from tests.search.planted import OBJECTIVES, SPACE, observed

CONFIGS = list(dict.fromkeys(SPACE.sample(np.random.default_rng(s)) for s in range(80)))
ROWS = [o.values or () for o in observed(CONFIGS)]
X = SPACE.features(CONFIGS)
Y = oriented(OBJECTIVES, ROWS)


@pytest.fixture
def compiled() -> Iterator[list[float]]:
    """Seconds of every compilation that takes more than a moment."""
    seconds: list[float] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event.endswith("backend_compile_duration") and duration > 0.5:
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(listen)


def drawn(count: int, seed: int = 0) -> SaasFullyBayesianSingleTaskGP:
    y = (Y[:count, :1] - Y[:count, :1].mean()) / Y[:count, :1].std(ddof=1)
    return nuts.fitted(torch.as_tensor(X[:count]), torch.as_tensor(y), seed)


def test_padding_adds_a_constant_to_the_log_posterior_and_nothing_to_its_gradient() -> None:
    count, columns = 20, X.shape[1]
    y = (Y[:count, 0] - Y[:count, 0].mean()) / Y[:count, 0].std(ddof=1)
    bare = (X[:count], y, np.ones(count, dtype=bool))
    with jax.enable_x64(True):
        padded = tuple(map(jnp.asarray, nuts.padded(*bare[:2])))
        assert len(padded[0]) == 32

        def energy(rows: tuple[jax.Array, ...], point: dict[str, jax.Array]) -> jax.Array:
            return potential_energy(nuts.sparse_process, rows, {}, point)

        def at(seed: int) -> dict[str, jax.Array]:
            values = np.random.default_rng(seed).normal(size=4 + columns)
            names = ("outputscale", "mean", "noise", "kernel_tausq")
            scalars = {name: jnp.asarray(v) for name, v in zip(names, values, strict=False)}
            return {**scalars, "_kernel_inv_length_sq": jnp.asarray(values[4:])}

        constant = 12 * 0.5 * np.log(2 * np.pi)
        for seed in range(5):
            point = at(seed)
            plain, slope = jax.value_and_grad(energy, argnums=1)(bare, point)
            wide, wide_slope = jax.value_and_grad(energy, argnums=1)(padded, point)
            assert float(wide - plain) == pytest.approx(constant, abs=1e-9)
            for name, value in slope.items():
                np.testing.assert_allclose(wide_slope[name], value, rtol=1e-8, atol=1e-9)


def test_it_is_the_process_that_botorch_draws() -> None:
    """The same density as BoTorch's own program at every point: only padding is ours."""
    y = torch.as_tensor((Y[:32, :1] - Y[:32, :1].mean()) / Y[:32, :1].std(ddof=1))
    with jax.enable_x64(True):
        theirs = SaasFullyBayesianSingleTaskGP(torch.as_tensor(X[:32]), y).pyro_model
        ours = nuts.padded(X[:32], y.numpy()[:, 0])
        for seed in range(3):
            values = np.random.default_rng(seed).normal(size=4 + X.shape[1])
            names = ("outputscale", "mean", "noise", "kernel_tausq")
            point = {name: jnp.asarray(v) for name, v in zip(names, values, strict=False)}
            point["_kernel_inv_length_sq"] = jnp.asarray(values[4:])
            energies = (
                potential_energy(theirs.sample, (), {}, point),
                potential_energy(nuts.sparse_process, ours, {}, point),
            )
            assert float(energies[0]) == pytest.approx(float(energies[1]), abs=1e-8)


def test_sixteen_hyper_samples_predict_in_float64() -> None:
    model = drawn(24)
    assert model.num_mcmc_samples == nuts.SAMPLES // nuts.THINNING == 16
    posterior = model.posterior(torch.as_tensor(X[:3]))
    assert posterior.mean.dtype == torch.float64
    assert posterior.mean.shape == (16, 3, 1)
    assert len(model.covar_module.base_kernel.lengthscale.unique(dim=0)) > 8  # it has moved


def test_a_growing_study_compiles_once_in_32_trials(compiled: list[float]) -> None:
    drawn(20)
    compiled.clear()
    for count in range(21, 27):
        drawn(count)
    assert compiled == []


def test_what_was_compiled_is_kept_on_disk_and_serves_other_data(tmp_path: Path) -> None:
    """So it can't hold any: the second fit's data are others, and its program is the first's."""
    before, hits = jax.config.jax_compilation_cache_dir, list[str]()

    def listen(event: str, **_: object) -> None:
        if event.endswith("cache_hits"):
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        for count in (20, 21):
            assert hits == []
            jax.clear_caches()
            compilation_cache.reset_cache()
            drawn(count)
        assert hits
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.monitoring.unregister_event_listener(listen)
        compilation_cache.reset_cache()


def test_numbers_that_have_no_density_are_refused_by_name() -> None:
    with pytest.raises(FitError, match="saas on 24 trials: NUTS found no finite density"):
        fit("saas", X[:24], np.full((24, 2), np.nan), 0)
    huge = torch.as_tensor(Y[:24, :1] * 1e200)
    with pytest.raises(RuntimeError, match="NUTS found no finite density"):
        nuts.fitted(torch.as_tensor(X[:24]), huge, 0)


@pytest.mark.long
def test_memory_stays_flat_over_fifty_fits() -> None:
    """Within a tenth, once both shapes of the fifty are compiled."""
    drawn(13)
    drawn(62)
    before = _resident_bytes()
    for count in range(13, 63):
        drawn(count)
    assert _resident_bytes() < 1.1 * before


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
