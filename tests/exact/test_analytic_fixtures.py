"""The exact mixture against float64 arrays computed independently, for two and eight dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import VE, VP, SubVP
from sdelab.exact import GaussianMixture

SDES = {"vp": VP(), "ve": VE(), "subvp": SubVP()}
CASES = [f"gmm{d}_{name}" for d in (2, 8) for name in SDES]


def diffused(arrays, name):
    mixture = GaussianMixture(
        *(jnp.asarray(arrays[f"gmm_{part}"], jnp.float64) for part in ("means", "covs", "weights"))
    )
    return mixture.score(SDES[name.split("_")[1]])


def agree(value, truth, rtol):
    """Relative to the size of the array at each time: single entries of a score pass through zero."""
    scale = np.abs(truth).max(axis=tuple(range(1, truth.ndim)), keepdims=True)
    np.testing.assert_allclose(np.asarray(value) / scale, truth / scale, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", CASES)
def test_float64(name, load_fixture):
    arrays = load_fixture(f"F_analytic/{name}")
    with jax.enable_x64(True):
        score = diffused(arrays, name)
        t, x = jnp.asarray(arrays["t"]), jnp.asarray(arrays["x"])
        agree(jax.vmap(score)(x, t), arrays["score"], 1e-10)
        agree(jax.vmap(score.denoise)(x, t), arrays["denoiser"], 1e-10)
        agree(jax.vmap(score.log_prob)(x, t), arrays["logp"], 1e-10)
        agree(jax.vmap(score.divergence)(x, t), arrays["hess_trace"], 1e-10)
        chosen = np.array([3, len(arrays["t"]) - 2])
        agree(jax.vmap(score.jacobian)(x[chosen], t[chosen]), arrays["hess"], 1e-10)


@pytest.mark.parametrize("name", CASES)
def test_posterior_covariance_by_the_second_tweedie_formula(name, load_fixture):
    """Cov = sigma^2 (I + sigma^2 hess)/alpha^2 from the stored Hessian, where it does not cancel."""
    arrays = load_fixture(f"F_analytic/{name}")
    chosen = np.array([3, len(arrays["t"]) - 2])
    alpha, std = (arrays[part][chosen][:, None, None, None] for part in ("alpha", "std"))
    truth = std**2 * (np.eye(arrays["x"].shape[-1]) + std**2 * arrays["hess"]) / alpha**2
    cancellation = np.max(std**4 / alpha**2 * np.abs(arrays["hess"]), axis=(1, 2, 3)) * 1e-12
    with jax.enable_x64(True):
        score = diffused(arrays, name)
        value = jax.vmap(score.posterior_covariance)(jnp.asarray(arrays["x"][chosen]), jnp.asarray(arrays["t"][chosen]))
    for ours, theirs, atol in zip(np.asarray(value), truth, cancellation, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=max(atol, 1e-12))


@pytest.mark.parametrize("name", CASES)
def test_float32_down_to_the_smallest_time(name, load_fixture):
    """In float32 the state itself is rounded: an error of 6e-8 |x| is amplified by the norm of the Jacobian."""
    arrays = load_fixture(f"F_analytic/{name}")
    with jax.enable_x64(True):
        score = diffused(arrays, name)
        x32 = jnp.asarray(arrays["x"], jnp.float32)
        t32 = jnp.asarray(arrays["t"], jnp.float32)
        double = jax.vmap(score)(x32.astype(jnp.float64), t32.astype(jnp.float64))
        denoised = jax.vmap(score.denoise)(x32.astype(jnp.float64), t32.astype(jnp.float64))
    mixture = GaussianMixture(arrays["gmm_means"], arrays["gmm_covs"], arrays["gmm_weights"])
    score = mixture.score(SDES[name.split("_")[1]])
    assert mixture.means.dtype == jnp.float32
    agree(jax.vmap(score)(x32, t32), np.asarray(double), 2e-5)
    agree(jax.vmap(score.denoise)(x32, t32), np.asarray(denoised), 2e-5)
