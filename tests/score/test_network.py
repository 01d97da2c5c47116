"""A network as a score: times, conditions, keys, dtypes and compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import VE, VP
from sdelab.score import EDMPreconditioner, NetworkScore, NoisePrediction

X = jax.random.normal(jax.random.key(1), (4, 3))


def network(params, x, c_noise, condition, keys=None):
    out = params["gain"] * x + jnp.tanh(c_noise)[:, None]
    if condition is not None:
        out = out + condition.astype(x.dtype)[:, None]
    if keys is not None:
        out = out * jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (3,)).astype(x.dtype))(keys)
    return out


PARAMS = {"gain": jnp.asarray(0.3)}


def score_of(sde=VP(), preconditioner=NoisePrediction(), apply=network):
    return NetworkScore(sde, preconditioner, apply, PARAMS)


def test_a_scalar_time_is_that_time_for_every_sample():
    score = score_of(preconditioner=EDMPreconditioner())
    for method in (score, score.denoise, score.noise):
        np.testing.assert_array_equal(method(X, 0.3), method(X, jnp.full((4,), 0.3)))


def test_a_sample_alone_is_the_sample_in_the_batch():
    score, t, labels = score_of(), jnp.asarray([0.1, 0.2, 0.5, 0.9]), jnp.arange(4)
    together = score(X, t, labels)
    for i in range(4):
        np.testing.assert_allclose(score(X[i : i + 1], t[i : i + 1], labels[i : i + 1])[0], together[i], rtol=1e-6)


def test_the_condition_reaches_the_network():
    labels = jnp.arange(4)
    difference = score_of().noise(X, 0.5, labels) - score_of().noise(X, 0.5)
    np.testing.assert_allclose(difference, np.arange(4.0)[:, None] * np.ones(3), atol=1e-6)


def test_the_state_is_float32_around_a_bfloat16_network():
    def half(params, x, c_noise, condition, keys=None):
        return network(params, x, c_noise, condition, keys).astype(jnp.bfloat16)

    score = score_of(apply=half)
    for method in (score, score.denoise, score.noise):
        assert method(X, 0.5).dtype == jnp.float32
    np.testing.assert_allclose(score.noise(X, 0.5), score_of().noise(X, 0.5), rtol=2**-8, atol=1e-6)


def test_keys_are_per_sample_and_apart_from_those_of_others():
    keys = jax.random.split(jax.random.key(0), 4)
    score = score_of()
    drawn = score.with_keys(keys).noise(X, 0.5)
    assert np.any(drawn == 0.0)
    assert np.any(drawn != 0.0)
    np.testing.assert_array_equal(score.with_keys(keys[2:3]).noise(X[2:3], 0.5)[0], drawn[2])
    # neither the keys themselves nor what a loss derives from them
    derived = {tuple(np.asarray(jax.random.key_data(k))) for key in keys for k in [key, *jax.random.split(key, 4)]}
    used = {tuple(np.asarray(jax.random.key_data(k))) for k in score.with_keys(keys).keys}
    assert not derived & used


def test_a_second_score_of_the_same_function_does_not_recompile():
    traces = []

    @jax.jit
    def evaluate(score, x):
        traces.append(None)
        return score(x, 0.5)

    evaluate(score_of(), X)
    other = NetworkScore(VP(), NoisePrediction(), network, {"gain": jnp.asarray(0.7)})
    np.testing.assert_allclose(evaluate(other, X), other(X, 0.5), rtol=1e-6)
    assert len(traces) == 1


def test_parameters_and_the_process_are_differentiated_together():
    def loss(score):
        return jnp.sum(score.noise(X, 0.5) ** 2)

    gradient = jax.grad(loss)(score_of(sde=VE()))
    h = 1e-2
    up, down = (NetworkScore(VE(), NoisePrediction(), network, {"gain": PARAMS["gain"] + d}) for d in (h, -h))
    np.testing.assert_allclose(gradient.params["gain"], (loss(up) - loss(down)) / (2 * h), rtol=1e-3)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"t has shape \(3,\)"):
        score_of()(X, jnp.full((3,), 0.5))
    with pytest.raises(ValueError, match=r"t = 1\.5 lies outside the process"):
        score_of()(X, 1.5)
    with pytest.raises(ValueError, match=r"returned shape \(4, 2\) for an input of shape \(4, 3\)"):
        score_of(apply=lambda p, x, *_, **__: x[:, :2])(X, 0.5)
