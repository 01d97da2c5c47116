"""The functions that exponential integrators are made of, against their series in exact fractions."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.solvers.exponential import phis

ARGUMENTS = [-30.0, -2.5, -2.0000001, -2.0, -1.0, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 1.0, 2.0, 2.0000001, 2.5, 30.0]


def exact(k, z):
    """The sum of z^n / (n + k)!, whose terms fall from n = |z| on."""
    return float(sum(Fraction(z) ** n / math.factorial(n + k) for n in range(160)))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_phis_to_rounding(count):
    with jax.enable_x64(True):
        found = jax.jit(lambda z: phis(count, z))(jnp.asarray(ARGUMENTS))
    for k, values in enumerate(found, start=1):
        np.testing.assert_allclose(values, [exact(k, z) for z in ARGUMENTS], rtol=1e-14)


def test_their_derivatives_on_both_sides():
    """From phi_k' = phi_k - k phi_{k+1}: differentiate e^{(1 - theta) z} theta^{k-1} / (k-1)! under the integral."""
    with jax.enable_x64(True):
        for z in (-3.0, -2.0, 0.0, 1.5, 4.0):
            slopes = jax.jacfwd(lambda z: jnp.stack(phis(3, z)))(jnp.asarray(z))
            expected = [exact(k, z) - k * exact(k + 1, z) for k in (1, 2, 3)]
            np.testing.assert_allclose(slopes, expected, rtol=1e-12)
