"""Correctors leave the marginal invariant, as far as a discretised Langevin step can.

On a Gaussian of standard deviation tau the step 2 (snr tau)^2 has the stationary variance tau^2 / (1 - snr^2), in any
dimension; on mixtures the bias vanishes as snr -> 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import solvers
from tests.solvers.cases import PROCESSES

STD = 0.6


def stationary_variance(corrector, sde, t, d):
    """From one affine step, exactly: x -> A x + C z has the stationary variance C^2 / (1 - A^2)."""
    score = sdelab.exact.Gaussian(jnp.zeros(d), jnp.asarray(STD**2)).score(sde)
    process = sdelab.ReverseSDE(sde, score)
    one, nothing = jnp.ones((1, d)), jnp.zeros((1, 1, d))
    slope = corrector.correct(process, one, t, nothing)[0]
    spread = corrector.correct(process, 0.0 * one, t, nothing + 1.0)[0]
    return np.asarray(spread**2 / (1.0 - slope**2))


@pytest.mark.parametrize("d", [2, 256])
@pytest.mark.parametrize("snr", [0.16, 0.05])
@pytest.mark.parametrize("name", PROCESSES)
def test_langevin_is_the_ideal_discretisation_where_its_estimate_is_exact(name, snr, d):
    with jax.enable_x64(True):
        sde = PROCESSES[name]
        t = jnp.asarray(0.5 * sde.t_max if name != "EDM" else 0.7)
        corrector = solvers.Langevin(snr=snr, norms=solvers.ExpectedNorms(data_std=STD))
        marginal = (sde.alpha(t) * STD) ** 2 + sde.sigma(t) ** 2
        ratio = stationary_variance(corrector, sde, t, d) / float(marginal)
        np.testing.assert_allclose(ratio, 1 / (1 - snr**2), rtol=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
def test_default_steps_are_never_more_biased_than_that(name):
    """Langevin's default estimate and AnnealedLangevin's are the largest score norms: their steps are the smaller."""
    with jax.enable_x64(True):
        sde = PROCESSES[name]
        t = jnp.asarray(0.5 * sde.t_max if name != "EDM" else 0.7)
        marginal = float((sde.alpha(t) * STD) ** 2 + sde.sigma(t) ** 2)
        for corrector in (solvers.Langevin(snr=0.16), solvers.AnnealedLangevin(snr=0.16)):
            ratio = stationary_variance(corrector, sde, t, 2) / marginal
            assert np.all((ratio >= 1.0) & (ratio <= 1 / (1 - 0.16**2) + 1e-9))


@pytest.mark.parametrize(("d", "batch"), [(2, 20_000), (256, 500)])
def test_invariance_in_the_long_run(d, batch):
    """The same by simulation, from the exact marginal, over several relaxation times: |ratio - ideal| <= 0.01."""
    sde, snr, t = sdelab.VP(), 0.16, jnp.asarray(0.3)
    gaussian = sdelab.exact.Gaussian(jnp.zeros(d), jnp.asarray(STD**2))
    process = sdelab.ReverseSDE(sde, gaussian.score(sde))
    corrector = solvers.Langevin(snr=snr, steps=10, norms=solvers.ExpectedNorms(data_std=STD))
    keys = solvers.sample_keys(jax.random.key(3), batch)
    noise = solvers.KeyedNoise(keys)
    x = gaussian.diffused(sde, t).sample(jax.random.key(0), batch)
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)

    @jax.jit
    def run(x):
        def step(x, i):
            x, _ = corrector.correct(process, x, t, noise.draw(i, 10, like))
            return x, jnp.mean(x**2)

        return jax.lax.scan(step, x, jnp.arange(60))

    _, variances = run(x)
    marginal = float((sde.alpha(t) * STD) ** 2 + sde.sigma(t) ** 2)
    np.testing.assert_allclose(np.mean(variances[20:]) / marginal, 1 / (1 - snr**2), atol=0.01)


def test_bias_on_a_mixture_vanishes_with_the_step():
    """After the same diffusion time, the drift of the second moment is within noise at snr 0.05, seen at 0.6."""
    sde, t, batch = sdelab.SubVP(), jnp.asarray(0.25), 40_000
    mixture = sdelab.exact.GaussianMixture(jnp.array([[1.0, 0.0], [-1.0, 0.5]]), jnp.asarray(0.04))
    process = sdelab.ReverseSDE(sde, mixture.score(sde))
    exact = mixture.diffused(sde, t)
    second = float(jnp.trace(exact.covariance()))
    x0 = exact.sample(jax.random.key(5), batch)

    def drift(snr, steps):
        corrector = solvers.Langevin(snr=snr, steps=1)
        noise = solvers.KeyedNoise(solvers.sample_keys(jax.random.key(1), batch))
        like = jax.ShapeDtypeStruct(x0.shape, x0.dtype)

        def step(x, i):
            return corrector.correct(process, x, t, noise.draw(i, 1, like))[0], None

        x, _ = jax.jit(lambda x: jax.lax.scan(step, x, jnp.arange(steps)))(x0)
        return (float(jnp.trace(jnp.cov(x.T))) - second) / second

    assert abs(drift(0.05, 144)) < 0.015
    assert drift(0.6, 1 * 40) > 0.05


def test_several_steps_are_the_same_as_one_after_the_other():
    sde = sdelab.VE()
    mixture = sdelab.exact.GaussianMixture(jnp.array([[1.0, 0.0], [-1.0, 0.5]]), jnp.asarray(0.04))
    process = sdelab.ReverseSDE(sde, mixture.score(sde))
    x, t = jnp.ones((3, 2)), jnp.asarray(0.4)
    noise = jax.random.normal(jax.random.key(0), (2, 3, 2))
    twice, mean = solvers.Langevin(steps=2).correct(process, x, t, noise)
    first, _ = solvers.Langevin().correct(process, x, t, noise[:1])
    second, second_mean = solvers.Langevin().correct(process, first, t, noise[1:])
    np.testing.assert_allclose(twice, second, rtol=1e-6)
    np.testing.assert_allclose(mean, second_mean, rtol=1e-6)
