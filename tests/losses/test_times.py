"""Distributions of training times: closed forms, unbiasedness, and no dependence on the layout of the batch."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import EDM, VE, VP, SubVP
from sdelab.losses import Antithetic, ImportanceSampledTime, LogNormalNoise, NoiseOf, Stratified, UniformTime
from tests.score.cases import SDES

QUANTILE = eqx.filter_jit(lambda sampler, uniform, sde: sampler.quantile(uniform, sde))
UNIFORM = jnp.asarray((np.arange(1000) + 0.5) / 1000, jnp.float32)


def total_rate(t, beta_min=0.1, beta_max=20.0):
    return t * (beta_min + 0.5 * t * (beta_max - beta_min))


CLOSED_FORMS = {  # the distribution function up to a constant, and a factor
    "vp": (VP(), lambda t: np.log(np.expm1(total_rate(t)))),
    "subvp": (SubVP(), lambda t: 2.0 * np.log(np.sinh(0.5 * total_rate(t)))),
    "ve": (VE(), lambda t: t),
    "edm": (EDM(), np.log),
}


@pytest.mark.parametrize("name", list(CLOSED_FORMS))
def test_importance_sampled_times_have_their_closed_form(name):
    sde, form = CLOSED_FORMS[name]
    t_min = 1e-3
    times, weight = QUANTILE(ImportanceSampledTime(sde, t_min), UNIFORM, sde)
    t = np.asarray(times, np.float64)
    share = (form(t) - form(t_min)) / (form(sde.t_max) - form(t_min))
    np.testing.assert_allclose(share, UNIFORM, atol=2e-6)
    assert np.all(np.diff(t) > 0)
    # the weight is 1/q up to the width of a cell: g^2/sigma^2 times it is the constant that normalises
    rate = np.asarray((sde.diffusion(times) / sde.sigma(times)) ** 2 * weight, np.float64)
    np.testing.assert_allclose(rate, np.mean(rate), rtol=5e-3)


@pytest.mark.parametrize("name", list(SDES))
def test_on_every_process_the_table_is_the_inverse_of_the_integral(name):
    r"""Against quadrature of $g^2/\sigma^2$ in float64; and the weight is one over the density that is drawn from."""
    sde, t_min = SDES[name], 1e-4 * SDES[name].t_max
    sampler = ImportanceSampledTime(sde, t_min)
    t = np.geomspace(t_min, sde.t_max, 200_001)
    with jax.enable_x64(True):
        rate = np.asarray((sde.diffusion(jnp.asarray(t)) / sde.sigma(jnp.asarray(t))) ** 2)
    integral = np.concatenate([[0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1]) * np.diff(t))])
    wanted = np.interp(np.asarray(UNIFORM) * integral[-1], integral, t)
    times, weight = QUANTILE(sampler, UNIFORM, sde)
    np.testing.assert_allclose(times, wanted, rtol=1e-4)
    np.testing.assert_allclose(
        1.0 / ((sde.t_max - t_min) * sampler.density(times)), weight, rtol=1e-2
    )  # the next cell's
    # weighted, they are uniform: the mean of t is the middle of the interval, up to a midpoint rule's error
    middle = np.mean(np.asarray(times, np.float64) * np.asarray(weight, np.float64))
    np.testing.assert_allclose(middle, 0.5 * (sde.t_max + t_min), rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_coarse_table_is_unbiased_too(steps):
    sampler = ImportanceSampledTime(VP(), 0.01, steps=steps)
    u = jnp.asarray((np.arange(300_000) + 0.5) / 300_000, jnp.float32)
    times, weight = QUANTILE(sampler, u, VP())
    values = np.asarray(times, np.float64) ** 2 * np.asarray(weight, np.float64)
    np.testing.assert_allclose(values.mean(), (1 - 0.01**3) / 3 / 0.99, rtol=1e-5)


@pytest.mark.parametrize("name", list(SDES))
def test_log_normal_noise_on_every_process(name):
    sde = SDES[name]
    t, _ = QUANTILE(LogNormalNoise(-1.2, 1.2), jnp.append(UNIFORM, jnp.asarray([0.0, 1.0])), sde)
    assert np.all(np.isfinite(t))
    level = np.log(np.asarray(sde.sigma(t) / sde.alpha(t), np.float64))[:-2]
    wanted = -1.2 + 1.2 * np.asarray(jax.scipy.special.ndtri(UNIFORM), np.float64)
    with jax.enable_x64(True):
        ends = [float(-0.5 * sde.log_snr(jnp.asarray(end, jnp.float64))) for end in (0.0, sde.t_max)]
    np.testing.assert_allclose(level, np.clip(wanted, *ends), atol=1e-5)


BATCH = 12
INDEX = jnp.arange(BATCH)
KEY = jax.random.key(3)
KEYS = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(INDEX)
LAYOUTS = {"stratified": Stratified(UniformTime(), BATCH), "antithetic": Antithetic(UniformTime())}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_sample_s_time_does_not_depend_on_where_the_others_are(name):
    draw = LAYOUTS[name].draw
    together = np.asarray(draw(KEYS, VP(), index=INDEX, shared_key=KEY)[0])
    for part in (INDEX[:5], INDEX[5:], INDEX[::-1], INDEX[3:4]):
        alone = draw(KEYS[part], VP(), index=part, shared_key=KEY)[0]
        np.testing.assert_allclose(alone, together[part], rtol=3e-7)  # one last digit: XLA's, for another shape


def test_every_stratum_has_its_time_and_the_mean_loses_its_variance():
    t = np.asarray(LAYOUTS["stratified"].draw(KEYS, VP(), index=INDEX)[0])
    np.testing.assert_array_equal(np.floor((t - 1e-5) / (1 - 1e-5) * BATCH), np.arange(BATCH))

    def mean_square(step, draw):
        key = jax.random.fold_in(jax.random.key(0), step)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(INDEX)
        return jnp.mean(draw(keys, VP(), index=INDEX, shared_key=key)[0] ** 2)

    steps = jnp.arange(4000)
    means = {
        kind: np.asarray(jax.vmap(lambda step, draw=draw: mean_square(step, draw))(steps), np.float64)
        for kind, draw in {"none": UniformTime().draw, **{k: v.draw for k, v in LAYOUTS.items()}}.items()
    }
    for kind, values in means.items():
        assert abs(values.mean() - 1 / 3) < 4 * values.std() / np.sqrt(4000) + 2e-5, kind
    assert means["stratified"].var() < 1.5 / BATCH**2 * means["none"].var()  # 1/B^3 against 1/B, up to a constant
    assert means["antithetic"].var() < 0.2 * means["none"].var()  # t^2 is nearly linear: 1/16 of it is left


def test_pairs_are_antithetic_and_each_time_is_uniform():
    many = jnp.arange(20_000)
    keys = jnp.broadcast_to(KEY, (20_000,))  # it draws nothing from these
    t = np.asarray(Antithetic(UniformTime(0.0)).draw(keys, VP(), index=many, shared_key=KEY)[0], np.float64)
    np.testing.assert_allclose(t[::2] + t[1::2], 1.0, atol=1e-6)
    distance = np.max(np.abs(np.sort(t) - np.arange(1, 20_001) / 20_000))
    assert distance < 1.95 * np.sqrt(2 / 20_000)


def test_distributions_compose():
    sampler = Stratified(ImportanceSampledTime(VP(), 1e-3), 100)
    keys = jax.random.split(KEY, 100)
    t, weight = sampler.draw(keys, VP(), index=jnp.arange(100))
    share = (np.log(np.expm1(total_rate(np.asarray(t, np.float64)))) - np.log(np.expm1(total_rate(1e-3)))) / (
        np.log(np.expm1(total_rate(1.0))) - np.log(np.expm1(total_rate(1e-3)))
    )
    np.testing.assert_array_equal(np.floor(share * 100 + 1e-4 * (share * 100 % 1 > 0.999)), np.arange(100))
    assert np.any(np.asarray(weight) != 1.0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="index = None is not accepted by Stratified"):
        LAYOUTS["stratified"](KEYS, VP())
    with pytest.raises(ValueError, match="index or shared_key = None is not accepted by Antithetic"):
        LAYOUTS["antithetic"].draw(KEYS, VP(), index=INDEX)
    with pytest.raises(ValueError, match=r"t_min = 0\.0 is not accepted"):
        ImportanceSampledTime(VP(), 0.0)
    with pytest.raises(ValueError, match=r"sde.t_max = 80\.0 is not accepted"):
        ImportanceSampledTime(VP()).quantile(UNIFORM, EDM())
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda beta: ImportanceSampledTime(VP(beta_max=beta)).times)(jnp.asarray(20.0))
    with pytest.raises(ValueError, match=r"std = 0\.0 is not accepted"):
        LogNormalNoise(std=0.0)
    with pytest.raises(TypeError, match="AbstractTimeDistribution"):
        NoiseOf(VP(), LAYOUTS["stratified"])
    with pytest.raises(ValueError, match="batch_size = 0"):
        Stratified(UniformTime(), 0)
