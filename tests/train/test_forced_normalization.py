"""Weights stay on their sphere, and what is not a weight is updated as if nothing were there."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdelab.train.forced_normalization import with_forced_normalization

PARAMS = {
    "layer": {"weight": jnp.asarray(np.random.RandomState(0).normal(size=(3, 3, 8, 5)), jnp.float32)},
    "gain": jnp.asarray(0.5),
}
GRADIENT = jax.tree.map(lambda p: jnp.cos(7.0 * p), PARAMS)


def updated(optimizer, params=PARAMS):
    updates, _ = optimizer.update(GRADIENT, optimizer.init(params), params)
    return optax.apply_updates(params, updates)


def test_an_update_ends_where_the_plain_one_does_seen_from_the_centre():
    plain, forced = updated(optax.sgd(0.3)), updated(with_forced_normalization(optax.sgd(0.3)))
    np.testing.assert_allclose(forced["gain"], plain["gain"], rtol=1e-6)
    before, after = (np.asarray(p["layer"]["weight"], np.float64).reshape(-1, 5) for p in (plain, forced))
    np.testing.assert_allclose(np.sqrt(np.mean(after**2, axis=0)), 1.0, rtol=2e-4)
    cosine = np.sum(before * after, axis=0) / np.linalg.norm(before, axis=0) / np.linalg.norm(after, axis=0)
    np.testing.assert_allclose(cosine, 1.0, rtol=1e-6)


def test_parameters_are_needed():
    optimizer = with_forced_normalization(optax.sgd(0.3))
    with pytest.raises(ValueError, match="params = None"):
        optimizer.update(GRADIENT, optimizer.init(PARAMS))
