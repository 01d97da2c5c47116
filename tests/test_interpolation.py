"""Spherical interpolation against the geometry of the sphere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.interpolation import interpolate

KEY = jax.random.key(0)


def test_great_circles_at_constant_speed():
    """Shoemake's formula for codes of one length; equal angles for equal steps of the weight; both ends exactly."""
    with jax.enable_x64(True):
        z0, z1 = jax.random.normal(KEY, (2, 7, 4, 4, 1), jnp.float64)
        z0, z1 = (3.0 * z / jnp.linalg.norm(z.reshape(7, -1), axis=1).reshape(7, 1, 1, 1) for z in (z0, z1))
        weights = np.linspace(0.0, 1.0, 9)
        path = np.asarray(interpolate(z0, z1, weights)).reshape(9, 7, 16)
        a, b = np.asarray(z0).reshape(7, 16), np.asarray(z1).reshape(7, 16)
        theta = np.arccos(np.sum(a * b, axis=1) / 9.0)[:, None]
        shoemake = [(np.sin((1 - w) * theta) * a + np.sin(w * theta) * b) / np.sin(theta) for w in weights]
        np.testing.assert_allclose(path, shoemake, atol=1e-12)
        np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-13)


def test_the_length_runs_linearly_and_pairs_do_not_mix():
    z0, z1 = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([[0.0, 3.0], [5.0, 0.0]])
    path = interpolate(z0, z1, jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(np.linalg.norm(path, axis=-1), [[1.0, 2.0], [2.0, 3.5], [3.0, 5.0]], rtol=1e-6)
    np.testing.assert_allclose(path[1, 0], [2**0.5, 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(interpolate(z0[1:], z1[1:], 0.5)[0], path[1, 1:], rtol=1e-6)


@pytest.mark.parametrize("eps", [0.0, 1e-14, 1e-9, 1e-4])
def test_nearly_parallel_and_nearly_opposite_codes(eps):
    """The plane's own answer: rotation by w theta; at exactly opposite codes any circle, but a half turn at length 1."""
    with jax.enable_x64(True):
        weights = np.linspace(0.0, 1.0, 5)
        for theta in (eps, np.pi - eps):
            z0, z1 = (
                jnp.array([[1.0, 0.0, 0.0]]),
                jnp.array([[np.cos(theta), np.sin(theta) if theta != np.pi else 0.0, 0.0]]),
            )
            path = np.asarray(interpolate(z0, z1, weights))[:, 0]
            np.testing.assert_allclose(np.linalg.norm(path, axis=1), 1.0, atol=1e-12)
            np.testing.assert_allclose(path[:, 0], np.cos(weights * theta), atol=1e-12)
            np.testing.assert_allclose(np.hypot(path[:, 1], path[:, 2]), np.sin(weights * theta), atol=1e-12)
            np.testing.assert_allclose(path[-1], z1[0], atol=1e-12)


def test_errors():
    with pytest.raises(ValueError, match="one shape"):
        interpolate(jnp.ones((2, 3)), jnp.ones((2, 4)), 0.5)
    with pytest.raises(ValueError, match="at least two dimensions"):
        interpolate(jnp.ones((2, 1)), jnp.ones((2, 1)), 0.5)
    with pytest.raises(ValueError, match="z1 has a code of length 0"):
        interpolate(jnp.ones((2, 2)), jnp.array([[1.0, 1.0], [0.0, 0.0]]), 0.5)
    with pytest.raises(ValueError, match="weights has shape"):
        interpolate(jnp.ones((2, 2)), jnp.ones((2, 2)), jnp.ones((2, 2)))
