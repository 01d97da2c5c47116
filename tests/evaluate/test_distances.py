"""Distances between sets of samples against closed forms."""

import jax
import numpy as np
import pytest
from scipy import stats

from sdelab.evaluate import energy_distance, sliced_wasserstein

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def test_a_set_is_at_distance_zero_from_itself_in_any_order():
    x = RNG.normal(size=(700, 3))
    y = RNG.permutation(x)
    assert sliced_wasserstein(KEY, x, y) < 1e-12
    assert abs(energy_distance(x, y)) < 1e-6


def test_wasserstein_of_a_shift_in_one_dimension_is_the_shift():
    x = RNG.normal(size=(500, 1))
    np.testing.assert_allclose(sliced_wasserstein(KEY, x, x + 0.7), 0.7, rtol=1e-12)


def test_sliced_wasserstein_of_a_shift_is_its_length_over_root_d():
    x, shift = RNG.normal(size=(50, 8)), RNG.normal(size=8)
    expected = np.linalg.norm(shift) / np.sqrt(8)
    # the mean of P squared projections of a unit vector scatters by sqrt(2/P) at most
    found = sliced_wasserstein(KEY, x, x + shift, projections=20_000)
    np.testing.assert_allclose(found, expected, rtol=3 * np.sqrt(2 / 20_000) / 2)


def test_unequal_sizes_are_exact():
    """Three points against two, quantiles by hand: sixths of probability."""
    x, y = np.array([[0.0], [1.0], [5.0]]), np.array([[0.0], [2.0]])
    squares = (2 * 0.0 + 1 * 1.0 + 1 * 1.0 + 2 * 9.0) / 6
    np.testing.assert_allclose(sliced_wasserstein(KEY, x, y), np.sqrt(squares), rtol=1e-12)


def test_repeating_every_point_changes_nothing():
    x, y = RNG.normal(size=(40, 2)), RNG.normal(size=(30, 2)) + 1.0
    np.testing.assert_allclose(
        sliced_wasserstein(KEY, np.repeat(x, 3, axis=0), y), sliced_wasserstein(KEY, x, y), rtol=1e-12
    )
    np.testing.assert_allclose(energy_distance(np.repeat(x, 3, axis=0), y), energy_distance(x, y), rtol=1e-9)


def test_gaussians_in_one_dimension():
    """Between N(0, 1) and N(m, s^2): W2^2 = m^2 + (s - 1)^2, and E|X - Y| of a Gaussian difference."""
    levels = (np.arange(4000) + 0.5) / 4000
    m, s = 0.8, 1.5
    x, y = stats.norm.ppf(levels)[:, None], stats.norm.ppf(levels, m, s)[:, None]
    np.testing.assert_allclose(sliced_wasserstein(KEY, x, y), np.sqrt(m**2 + (s - 1) ** 2), rtol=2e-3)

    def mean_absolute(mean, std):
        return std * np.sqrt(2 / np.pi) * np.exp(-(mean**2) / (2 * std**2)) + mean * (
            1 - 2 * stats.norm.cdf(-mean / std)
        )

    expected = (
        2 * mean_absolute(m, np.hypot(1, s)) - mean_absolute(0.0, np.sqrt(2.0)) - mean_absolute(0.0, s * np.sqrt(2.0))
    )
    np.testing.assert_allclose(energy_distance(x, y), expected, rtol=2e-3)


def test_energy_distance_in_one_dimension_agrees_with_scipy():
    x, y = RNG.normal(size=300), RNG.normal(size=200) * 2.0
    np.testing.assert_allclose(energy_distance(x[:, None], y[:, None]), stats.energy_distance(x, y) ** 2, rtol=1e-6)


def test_events_are_flattened():
    x, y = RNG.normal(size=(2, 20, 3, 2, 1))
    assert energy_distance(x, y) == energy_distance(x.reshape(20, 6), y.reshape(20, 6))


@pytest.mark.parametrize("distance", [energy_distance, lambda x, y: sliced_wasserstein(KEY, x, y)])
def test_what_cannot_be_compared_is_refused(distance):
    x = np.zeros((5, 2))
    with pytest.raises(ValueError, match=r"\(2,\) and y of shape \(3,\)"):
        distance(x, np.zeros((5, 3)))
    with pytest.raises(ValueError, match="must hold finite samples"):
        distance(x, np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match="must hold finite samples"):
        distance(x, np.zeros((0, 2)))
