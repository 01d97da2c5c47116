"""Samples and losses by time of a network that knows its data to be Gaussian: both have closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.data import Dataset, Unscaled
from sdelab.losses import EDMWeighting, SigmaSquared
from sdelab.score import EDMPreconditioner, NetworkScore
from sdelab.sde import VP
from sdelab.train.looks import LossByTime, SampleGrid, largest_divisor
from tests.train.processes import run

STD = 0.7
SDE = VP()
SCORE = NetworkScore(
    SDE, EDMPreconditioner(data_std=STD), lambda params, x, c, condition, keys=None: params["w"] * x, {"w": 0.0}
)
PARAMS = {"w": jnp.zeros(())}


def total_std(t):
    return np.sqrt((np.asarray(SDE.alpha(t)) * STD) ** 2 + np.asarray(SDE.sigma(t)) ** 2)


def test_samples_are_those_of_the_gaussian_and_do_not_depend_on_how_many_are_drawn_at_once():
    """The flow scales a sample by the ratio of the standard deviations, and the last step shrinks it to its mean."""
    grid = SampleGrid(SCORE, (4, 4, 1), classes=10, seed=0, at_once=64)
    x = grid(PARAMS)
    assert (grid.columns, x.shape) == (10, (60, 4, 4, 1))
    small = SampleGrid(SCORE, (4, 4, 1), classes=10, seed=0, at_once=7)(PARAMS)
    np.testing.assert_allclose(small, x, rtol=1e-5)
    start, end = np.float32(SDE.t_max), np.float32(SDE.t_min)
    expected = np.asarray(SDE.alpha(end)) * STD**2 / total_std(end) / total_std(start)
    assert np.std(x) == pytest.approx(expected, rel=0.05)  # 960 normal numbers


def test_the_loss_at_a_time_is_the_variance_that_the_noise_has_given_the_state():
    r"""$E\|\hat\epsilon - \epsilon\|^2/d = \alpha^2 s^2/(\alpha^2 s^2 + \sigma^2)$, and the weighting is a factor."""
    data = np.random.default_rng(0).normal(0.0, STD, (64, 32, 32, 1)).astype(np.float32)
    dataset = Dataset(name="normal", train=data[:1], held_out=data, scaling=Unscaled())
    settings = {"conditional": False, "seed": 0}
    plain = LossByTime(SCORE, dataset, weighting=SigmaSquared(), at_once=64, **settings)
    t = plain.times.astype(np.float32)
    losses = plain(PARAMS)
    np.testing.assert_allclose(losses, (np.asarray(SDE.alpha(t)) * STD / total_std(t)) ** 2, rtol=0.02)
    weighted = LossByTime(SCORE, dataset, weighting=EDMWeighting(data_std=STD), at_once=16, **settings)(PARAMS)
    np.testing.assert_allclose(weighted, losses * EDMWeighting(data_std=STD).noise_weight(SDE, t), rtol=1e-4)


@pytest.mark.parametrize(("count", "limit", "chunk"), [(64, 64, 64), (64, 1000, 64), (60, 16, 15), (7, 5, 1)])
def test_chunks_have_one_size_within_the_limit(count, limit, chunk):
    assert largest_divisor(count, limit) == chunk


@pytest.mark.slow
def test_all_placements_show_the_same(tmp_path):
    """On 8 devices, and on 2 processes of 2, to 1e-5 of one device."""
    run(1, 8, "look", tmp_path / "eight.npz", "jit", "data", "fsdp", "pmap")
    run(2, 2, "look", tmp_path / "four.npz", "data", "fsdp", "pmap")
    arrays = [dict(np.load(tmp_path / name)) for name in ("eight.npz", "four.npz")]
    for name in ("samples", "losses"):
        one = arrays[0][f"jit {name}"]
        assert np.std(one) > 0.1
        for found in arrays:
            for key in found:
                if key.endswith(name):
                    np.testing.assert_allclose(found[key], one, rtol=1e-5, atol=1e-5, err_msg=key)
