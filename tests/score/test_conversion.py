"""Every prediction from every other, on every process, as exactly as float32 allows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.score import (
    DataPrediction,
    EDMPreconditioner,
    NoisePrediction,
    ScorePrediction,
    VelocityPrediction,
    conversion,
    convert,
)
from tests.score.cases import SDES, times_of, truth

# what each predicts, by definition
PREDICTIONS = {
    "noise": (NoisePrediction(), lambda x0, eps, a, s: eps),
    "data": (DataPrediction(), lambda x0, eps, a, s: x0),
    "velocity": (VelocityPrediction(), lambda x0, eps, a, s: a * eps - s * x0),
    "score": (ScorePrediction(), lambda x0, eps, a, s: -eps / s),
    "edm": (EDMPreconditioner(), lambda x0, eps, a, s: (s * x0 / 0.5 - a * 0.5 * eps) / np.sqrt(a**2 / 4 + s**2)),
}
PAIRS = list(itertools.product(PREDICTIONS, PREDICTIONS))


def interval_of(sde):
    """The ends of the process, the end of sampling, and between."""
    return np.unique(np.append(times_of(sde), [sde.t_min, sde.t_max])).astype(np.float32)


@pytest.mark.parametrize("name", list(SDES))
def test_every_prediction_from_every_other(name):
    sde = SDES[name]
    t = interval_of(sde)
    x0, eps, x, alpha, sigma = truth(sde, t)
    for source, target in PAIRS:
        (rule, predicted), (wanted_rule, wanted) = PREDICTIONS[source], PREDICTIONS[target]
        given, expected = predicted(x0, eps, alpha, sigma), wanted(x0, eps, alpha, sigma)
        got = convert(
            jnp.asarray(given, jnp.float32),
            jnp.asarray(x, jnp.float32),
            jnp.asarray(t),
            sde,
            source=rule,
            target=wanted_rule,
        )
        with jax.enable_x64(True):
            p, q = conversion(jnp.asarray(alpha), jnp.asarray(sigma), source=rule, target=wanted_rule)
        np.testing.assert_allclose(np.asarray(p) * x + np.asarray(q) * given, expected, rtol=1e-9, atol=1e-9)
        terms = np.abs(np.asarray(p) * x) + np.abs(np.asarray(q) * given) + 1e-30
        error = np.max(np.abs(np.asarray(got, np.float64) - expected) / terms)
        assert error < 5e-6, f"{source} to {target}: {error}"  # the kernel's rounding, and the arithmetic


@pytest.mark.parametrize("name", list(SDES))
def test_no_digit_is_lost_where_the_answer_is_determined(name):
    """A relative error, at every time, of what is one another up to a factor; and both ends where only one term is left."""
    sde = SDES[name]
    t = interval_of(sde)
    x0, eps, x, alpha, sigma = truth(sde, t)

    def between(source, target, value):
        rules = {"source": PREDICTIONS[source][0], "target": PREDICTIONS[target][0]}
        return convert(jnp.asarray(value, jnp.float32), jnp.asarray(x, jnp.float32), jnp.asarray(t), sde, **rules)

    np.testing.assert_allclose(between("noise", "score", eps), -eps / sigma, rtol=4e-6)
    np.testing.assert_allclose(between("score", "noise", -eps / sigma), eps, rtol=4e-6)
    for same in PREDICTIONS:
        value = PREDICTIONS[same][1](x0, eps, alpha, sigma)
        np.testing.assert_allclose(between(same, same, value), value, rtol=1e-6, atol=1e-6 * np.max(np.abs(value)))


@pytest.mark.parametrize("name", list(SDES))
def test_there_and_back(name):
    """The error of coming back is that of the way there, seen through the way back: nothing is added to it."""
    sde = SDES[name]
    t = interval_of(sde)
    x0, eps, x, alpha, sigma = truth(sde, t)
    x32, t32 = jnp.asarray(x, jnp.float32), jnp.asarray(t)
    for source, target in PAIRS:
        rule, other = PREDICTIONS[source][0], PREDICTIONS[target][0]
        given = jnp.asarray(PREDICTIONS[source][1](x0, eps, alpha, sigma), jnp.float32)
        there = convert(given, x32, t32, sde, source=rule, target=other)
        back = convert(there, x32, t32, sde, source=other, target=rule)
        with jax.enable_x64(True):
            a, s = jnp.asarray(alpha), jnp.asarray(sigma)
            p, q = (np.asarray(v) for v in conversion(a, s, source=rule, target=other))
            p_back, q_back = (np.asarray(v) for v in conversion(a, s, source=other, target=rule))
        inherent = np.abs(q_back) * (np.abs(p * x) + np.abs(q * given)) + np.abs(p_back * x) + 1e-30
        assert np.max(np.abs(np.asarray(back - given, np.float64)) / inherent) < 1e-5, (source, target)


@pytest.mark.parametrize("name", list(SDES))
def test_the_process_s_own_conversions_are_the_same(name):
    sde = SDES[name]
    t = interval_of(sde)
    x0, eps, x, alpha, sigma = truth(sde, t)
    x32, t32, eps32 = jnp.asarray(x, jnp.float32), jnp.asarray(t), jnp.asarray(eps, jnp.float32)
    rules = {"source": NoisePrediction(), "target": ScorePrediction()}
    np.testing.assert_allclose(convert(eps32, x32, t32, sde, **rules), sde.score_from_noise(eps32, t32), rtol=3e-6)
    v = jnp.asarray(alpha * eps - sigma * x0, jnp.float32)
    got = convert(v, x32, t32, sde, source=VelocityPrediction(), target=ScorePrediction())
    terms = np.abs(x) + np.abs(alpha / sigma * np.asarray(v))
    assert np.max(np.abs(got - sde.score_from_velocity(x32, v, t32)) * (alpha**2 + sigma**2) / terms) < 5e-6
