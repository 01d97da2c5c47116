"""The closed-form flow of a Gaussian, and Gaussians estimated from data."""

import dataclasses

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

import sdelab
from sdelab.exact.covariance import LowRank
from sdelab.geometry import GaussianFlow, diagonal_gaussian, full_gaussian, growth, low_rank_gaussian
from tests.solvers.cases import PROCESSES

MEAN = np.array([[0.7, -1.2], [0.4, 2.0]])
FACTOR = np.array([[1.5, 0.0], [0.5, 0.2], [-0.3, 0.4], [0.0, -0.6]])
COVARIANCES = {
    "full": FACTOR @ FACTOR.T + 0.01 * np.eye(4),
    "singular": FACTOR @ FACTOR.T,
    "diagonal": np.array([4.0, 1.0, 0.09, 1e-4]),
    "isotropic": np.array(0.25),
    "low rank": (FACTOR, 0.1),
}

each_process = pytest.mark.parametrize("sde", PROCESSES.values(), ids=PROCESSES.keys())


def flow(sde, kind, dtype=np.float64) -> GaussianFlow:
    given = COVARIANCES[kind]
    covariance = LowRank(*(np.asarray(a, dtype) for a in given)) if kind == "low rank" else np.asarray(given, dtype)
    return GaussianFlow(sde, sdelab.exact.Gaussian(MEAN.astype(dtype), covariance))


def starts(sde, dtype, n=3):
    return np.asarray(sde.prior_std(), dtype) * np.random.default_rng(0).normal(size=(n, 2, 2)).astype(dtype)


@pytest.mark.slow
@each_process
def test_it_solves_the_probability_flow(sde):
    """Its derivative in time is the flow's drift, with the exact score of the Gaussian, wherever it goes."""
    with jax.enable_x64(True):
        x = jnp.asarray(starts(sde, np.float64))
        times = jnp.asarray([0.9, 0.5, 0.1, 0.02]) * sde.t_max
        for kind in ("full", "singular", "diagonal", "low rank"):
            gaussian = flow(sde, kind)
            score = gaussian.gaussian.score(sde)
            drift = sdelab.ProbabilityFlow(sde, score).drift

            @jax.vmap
            def compare(t, gaussian=gaussian, drift=drift):
                state, slope = jax.jvp(lambda t: gaussian(x, sde.t_max, t), (t,), (jnp.ones_like(t),))
                return slope, drift(state, t)

            slope, expected = compare(times)
            np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())
            np.testing.assert_allclose(gaussian(x, 0.5, 0.5), x, rtol=1e-13)


@pytest.mark.slow
@each_process
def test_it_is_where_an_adaptive_solver_arrives(sde):
    with jax.enable_x64(True):
        gaussian, x = flow(sde, "full"), jnp.asarray(starts(sde, np.float64))
        process = sdelab.ProbabilityFlow(sde, gaussian.gaussian.score(sde))
        arrived = sdelab.sample(None, process, x, solver=diffrax.Dopri8(), rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(gaussian(x, sde.t_max, sde.t_min), arrived, rtol=2e-8, atol=2e-8)


@each_process
def test_float32_is_exact_to_rounding(sde):
    """Over the whole interval, to t = 0, between neighbours, near the data, and backwards, against float64.

    A rounding of the state or of the moved mean is carried on by the growth of the direction that grows most.
    """
    pairs = [(sde.t_max, sde.t_min), (sde.t_max, 0.0), (0.5, 0.5 * (1 + 1e-4)), (2 * sde.t_min, sde.t_min), (0.1, 0.9)]
    narrow = starts(sde, np.float32)
    for t0, t1 in ((np.float32(t0), np.float32(t1)) for t0, t1 in pairs):
        ours = flow(sde, "low rank", np.float32)(jnp.asarray(narrow), t0, t1)
        assert ours.dtype == jnp.float32
        with jax.enable_x64(True):
            exact = flow(sde, "low rank")
            wide = exact(jnp.asarray(narrow, float), np.float64(t0), np.float64(t1))
            most = float(jnp.max(exact.gains(np.float64(t0), np.float64(t1)).diagonal(lambda gain: gain)))
            most = max(most, float(growth(sde, 0.01, np.float64(t0), np.float64(t1))))
        scale = most * (np.abs(narrow).max() + 2.0) + np.abs(wide).max()
        np.testing.assert_allclose(ours, wide, rtol=0, atol=1e-6 * scale)


def test_back_and_forth_is_the_identity_and_times_may_differ_by_sample():
    sde = sdelab.SubVP()
    with jax.enable_x64(True):
        x = jnp.asarray(starts(sde, np.float64))
        for kind in ("isotropic", "low rank"):
            gaussian = flow(sde, kind)
            t0, t1 = jnp.asarray([1.0, 0.7, 0.2]), jnp.asarray([0.1, 0.9, 0.4])
            there = gaussian(x, t0, t1)
            np.testing.assert_allclose(gaussian(there, t1, t0), x, rtol=1e-10)
            one = [gaussian(x[i : i + 1], t0[i], t1[i])[0] for i in range(3)]
            np.testing.assert_allclose(there, jnp.stack(one), rtol=1e-13)


def test_trajectory_and_linear_part():
    """The flow carries the diffused Gaussian to itself: the covariance by `gains` is that of the end."""
    sde = sdelab.EDM()
    with jax.enable_x64(True):
        for kind in ("full", "diagonal", "low rank"):
            gaussian = flow(sde, kind)
            t0, t1 = 5.0, 0.3
            begin, end = (gaussian.gaussian.diffused(sde, t).covariance.matrix(lambda v: v) for t in (t0, t1))
            gains = gaussian.gains(t0, t1).matrix(lambda v: v)
            np.testing.assert_allclose(gains @ begin @ gains.T, end, rtol=1e-12, atol=1e-12)
            x = jnp.asarray(starts(sde, np.float64))
            pushed = gaussian.push(x, t0, t1).reshape(3, 4)
            np.testing.assert_allclose(pushed, x.reshape(3, 4) @ gains.T, rtol=1e-12, atol=1e-12)
            states = gaussian.trajectory(x, np.array([t0, 1.0, t1]))
            np.testing.assert_allclose(states[0], x, rtol=1e-13)
            np.testing.assert_allclose(states[2], gaussian(states[1], 1.0, t1), rtol=1e-12)


@pytest.mark.slow
def test_it_is_differentiable_by_the_process_where_the_variance_is_zero():
    gaussian = flow(sdelab.VP(), "singular", np.float32)

    def end(beta_max):
        return jnp.sum(dataclasses.replace(gaussian, sde=sdelab.VP(beta_max=beta_max))(x, 1.0, 0.0))

    x = jnp.asarray(starts(sdelab.VP(), np.float32))
    assert np.isfinite(jax.grad(end)(20.0))


def data(n, d=6):
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def test_estimates_are_the_moments_of_the_data():
    x = data(200)
    with jax.enable_x64(True):
        full, diagonal = full_gaussian(x.reshape(200, 2, 3)), diagonal_gaussian(x)
        np.testing.assert_allclose(full.mean, x.mean(axis=0).reshape(2, 3), rtol=1e-13)
        np.testing.assert_allclose(full.covariance.matrix(lambda v: v), np.cov(x.T, bias=True), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(diagonal.covariance.diagonal(lambda v: v), x.var(axis=0), rtol=1e-12)


@pytest.mark.parametrize("n", [200, 5])  # more samples than dimensions, and fewer
def test_low_rank_is_probabilistic_principal_component_analysis(n):
    """scikit-learn has the same model, with 1/(n - 1); its mean over the rest leaves out what fewer samples cannot see."""
    x, rank = data(n), 2
    with jax.enable_x64(True):
        ours = low_rank_gaussian(x, rank).covariance
        assert ours.matrix_shape() == (6, 6)
        variances = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1]
        np.testing.assert_allclose(ours.trace(lambda v: v), variances.sum(), rtol=1e-10)  # no variance is lost
        np.testing.assert_allclose(np.sort(ours.variances)[::-1], variances[:rank], rtol=1e-10)
        if n > 6:
            theirs = PCA(rank).fit(x).get_covariance() * (n - 1) / n
            np.testing.assert_allclose(ours.matrix(lambda v: v), theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
def test_low_rank_is_the_maximum_of_the_likelihood():
    x = data(50)
    with jax.enable_x64(True):
        best = low_rank_gaussian(x, 2)
        likelihood = float(jnp.mean(best.log_prob(jnp.asarray(x))))
        factor = best.covariance.vectors * jnp.sqrt(best.covariance.variances - best.covariance.remainder)[None]
        scale = jnp.sqrt(best.covariance.remainder[0])
        for seed in range(5):
            step = 0.05 * jax.random.normal(jax.random.key(seed), (6, 2))
            other = sdelab.exact.Gaussian(best.mean, LowRank(factor + step, scale * np.exp(0.03 * (seed - 2))))
            assert float(jnp.mean(other.log_prob(jnp.asarray(x)))) < likelihood


def test_float32_data_stay_float32():
    x = data(100).astype(np.float32)
    for gaussian in (full_gaussian(x), diagonal_gaussian(x), low_rank_gaussian(x, 3)):
        leaves = jax.tree.leaves(gaussian)
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: full_gaussian(data(6)), ValueError, "at least 7"),
        (lambda: diagonal_gaussian(data(1)), ValueError, "at least 2"),
        (lambda: low_rank_gaussian(data(4), 3), ValueError, "at least 5"),
        (lambda: low_rank_gaussian(data(40), 6), ValueError, "rank = 6"),
        (lambda: low_rank_gaussian(data(40), 0), ValueError, "rank = 0"),
        (lambda: diagonal_gaussian(np.ones(3)), ValueError, "shape"),
        (lambda: diagonal_gaussian(np.array([[1.0], [np.nan]])), ValueError, "finite"),
        (lambda: jax.jit(lambda x: diagonal_gaussian(x).mean)(jnp.ones((3, 2))), TypeError, "traced"),
        (lambda: GaussianFlow(sdelab.VP(), sdelab.VP()), TypeError, "gaussian"),
        (lambda: flow(sdelab.VP(), "full")(jnp.ones((2, 4)), 1.0, 0.5), ValueError, "event shape"),
        (lambda: flow(sdelab.VP(), "full")(jnp.ones((1, 2, 2)), 1.5, 0.5), ValueError, "outside the process"),
        (lambda: flow(sdelab.VP(), "singular", np.float32)(jnp.ones((1, 2, 2)), 0.0, 0.5), ValueError, "singular"),
        (lambda: flow(sdelab.VP(), "full").trajectory(jnp.ones((1, 2, 2)), 0.5), ValueError, "times"),
        (lambda: growth(sdelab.VP(), -1.0, 1.0, 0.5), ValueError, "variances"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(unhooked, call, error, message):
    with pytest.raises(error, match=message):
        call()
