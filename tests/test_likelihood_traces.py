"""The trace estimators on Jacobians that are known, and along a solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab.likelihood import ExactTrace, FixedProbes, GaussianHutchinson, Hutchinson, HutchPlusPlus

KEY = jax.random.key(0)
SIZE = 12


def estimates(divergence, matrix, draws):
    """The values of many draws for `v(x) = M x` in one batch, and how often the field was evaluated."""
    calls = []

    def velocity(x):
        calls.append(1)
        return (x.reshape(draws, SIZE) @ matrix.T).reshape(x.shape)

    x = jax.random.normal(KEY, (draws, 4, 3), matrix.dtype)
    value, traces = divergence(velocity, x, divergence.probes(jax.random.split(KEY, draws), x))
    np.testing.assert_allclose(value, (x.reshape(draws, SIZE) @ matrix.T).reshape(x.shape), rtol=1e-6, atol=1e-6)
    return np.asarray(traces), len(calls)


def decaying():
    """A Jacobian as a field has it near the data: a few large directions, a small rest, a multiple of the identity."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))
    return (
        -3.0 * np.eye(SIZE)
        + basis @ np.diag(30.0 * 4.0 ** -np.arange(SIZE)) @ basis.T
        + 0.05 * rng.normal(size=(SIZE, SIZE))
    )


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_the_exact_trace_in_any_chunks(chunk):
    with jax.enable_x64(True):
        matrix = jnp.asarray(decaying())
        traces, calls = estimates(ExactTrace(chunk), matrix, 2)
        np.testing.assert_allclose(traces, np.full((1, 2), np.trace(matrix)), rtol=1e-12)
        assert calls == 1


def test_random_traces_are_unbiased_with_the_variance_of_theory():
    """Rademacher: 2 sum of squares off the diagonal; Gaussian: 2 ||M||_F^2, of the symmetric part; per probe."""
    with jax.enable_x64(True):
        matrix, draws = jnp.asarray(decaying()), 4000
        symmetric = np.asarray(0.5 * (matrix + matrix.T))
        off = symmetric - np.diag(np.diag(symmetric))
        for kind, variance in ((Hutchinson(2), 2 * np.sum(off**2)), (GaussianHutchinson(2), 2 * np.sum(symmetric**2))):
            traces, calls = estimates(kind, matrix, draws)
            assert traces.shape == (2, draws)
            assert calls == 1
            assert abs(traces.mean() - np.trace(matrix)) < 4.5 * np.sqrt(variance / traces.size)
            np.testing.assert_allclose(traces.var(), variance, rtol=0.15)
            assert abs(np.corrcoef(traces)[0, 1]) < 4.5 / np.sqrt(draws)  # the probes of a sample are independent


def test_hutch_plus_plus_is_unbiased_and_beats_hutchinson_at_equal_cost():
    with jax.enable_x64(True):
        matrix, draws = jnp.asarray(decaying()), 2000
        exact = np.trace(matrix)
        plain = estimates(Hutchinson(9), matrix, draws)[0].mean(axis=0)
        traces, calls = estimates(HutchPlusPlus(3), matrix, draws)  # nine tangent passes too
        better = traces.mean(axis=0)
        assert calls == 1
        assert abs(better.mean() - exact) < 4.5 * better.std() / np.sqrt(draws)
        assert np.std(better) < 0.1 * np.std(plain)


@pytest.mark.slow
def test_hutch_plus_plus_is_exact_where_theory_says_so():
    """Rank k, without and with a multiple of the identity, that alone, nothing; and half as many columns as dimensions."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        left, right = rng.normal(size=(SIZE, 3)), rng.normal(size=(3, SIZE))
        low_rank = jnp.asarray(left @ right)
        for matrix in (low_rank, -40.0 * jnp.eye(SIZE) + low_rank, -2.5 * jnp.eye(SIZE), jnp.zeros((SIZE, SIZE))):
            np.testing.assert_allclose(
                estimates(HutchPlusPlus(3), matrix, 4)[0], np.trace(matrix), rtol=1e-9, atol=1e-9
            )
        full = jnp.asarray(decaying())
        np.testing.assert_allclose(estimates(HutchPlusPlus(SIZE // 2), full, 4)[0], np.trace(full), rtol=1e-9)


@pytest.mark.parametrize("divergence", [Hutchinson(count=64), HutchPlusPlus(count=1)])
@pytest.mark.slow
def test_along_a_solve_they_know_their_error(divergence):
    """One probe per sample and solve: within the standard error of the exact trace, where there is one."""
    sde = sdelab.VP()
    mixture = sdelab.exact.GaussianMixture(jnp.array([[1.0, 0.5], [-0.8, -0.3]]), jnp.array([0.09, 0.16]))
    flow = sdelab.ProbabilityFlow(sde, mixture.score(sde))
    x = mixture.sample(jax.random.key(4), 16)
    exact = np.asarray(sdelab.log_prob(flow, x))
    value, info = sdelab.likelihood.log_prob_with_info(flow, x, divergence=divergence, key=KEY)
    if isinstance(divergence, HutchPlusPlus):  # in two dimensions one column leaves nothing to chance
        assert np.all(np.isnan(info.standard_error))  # one probe has no spread
        np.testing.assert_allclose(value, exact, atol=1e-3)
        return
    assert np.all(np.abs(np.asarray(value) - exact) <= 4.5 * np.asarray(info.standard_error) + 1e-3)


def test_a_probe_belongs_to_its_sample():
    """The same probes in any batch, and the same for all of a solve."""
    keys, x = jax.random.split(KEY, 5), jnp.zeros((5, 4))
    for kind in (Hutchinson(2), HutchPlusPlus(2)):
        np.testing.assert_allclose(kind.probes(keys, x)[:, 3:4], kind.probes(keys[3:4], x[3:4]), rtol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match="count = 0"):
        HutchPlusPlus(0)
    with pytest.raises(ValueError, match="count = 2 is not accepted for 3 dimensions"):
        HutchPlusPlus(2).probes(jax.random.split(KEY, 2), jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="chunk = 0"):
        ExactTrace(chunk=0)
    with pytest.raises(ValueError, match=r"directions have shape \(1, 2, 2\)"):
        FixedProbes(jnp.zeros((1, 2, 2))).probes(None, jnp.zeros((2, 3)))
