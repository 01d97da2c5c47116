"""Principal components, the rotation plane, the emergence of features, the sensitivity, where theory has the answer."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import qr

import sdelab
from sdelab import grids, solvers
from sdelab.geometry import (
    GaussianFlow,
    denoised,
    emergence,
    gaussian_emergence_times,
    gaussian_variances,
    growth,
    principal_components,
    rotation_coefficients,
    rotation_plane,
    sensitivity,
)
from tests.solvers.cases import PROCESSES

SDE = sdelab.VP()
VARIANCES = np.array([4.0, 1.0, 0.25, 0.01])
ROTATION = qr(np.random.default_rng(0).normal(size=(4, 4)))[0]


def rotated_flow(sde, dtype=np.float32):
    """Gaussian data in four dimensions, with `VARIANCES` along the columns of `ROTATION`."""
    covariance = ROTATION * VARIANCES[None] @ ROTATION.T
    return GaussianFlow(sde, sdelab.exact.Gaussian(np.zeros(4, dtype), covariance.astype(dtype)))


@pytest.mark.slow
def test_principal_components_of_a_gaussian_trajectory():
    """A centred trajectory in two eigenvectors is a curve in their plane; its covariance is one of two by two numbers."""
    sde = sdelab.SubVP()
    with jax.enable_x64(True):
        times = np.linspace(sde.t_max, sde.t_min, 50)
        weights = np.array([[0.7, 0.0, -1.3, 0.0], [0.0, 0.4, 0.9, 0.0]])  # of the eigenvectors in x_T, two samples
        states = rotated_flow(sde, np.float64).trajectory(jnp.asarray(weights @ ROTATION.T), times)
        found = principal_components(states)
        factors = np.asarray(growth(sde, VARIANCES, np.float64(sde.t_max), times))
        for sample, (first, second) in enumerate([(0, 2), (1, 2)]):
            curve = factors[:, [first, second]] * weights[sample, [first, second]][None]
            expected = np.sort(np.linalg.eigvalsh(np.cov(curve.T, bias=True)))[::-1]
            np.testing.assert_allclose(found.variances[sample, :2], expected, rtol=1e-9)
            np.testing.assert_allclose(found.variances[sample, 2:], 0.0, atol=1e-20)
            inside = ROTATION[:, [first, second]] @ ROTATION[:, [first, second]].T
            np.testing.assert_allclose(found.vectors[sample, :2] @ inside, found.vectors[sample, :2], atol=1e-8)
        np.testing.assert_allclose(jnp.sum(found.explained[:, :2], axis=1), 1.0, rtol=1e-12)
        along = principal_components(states, 2).project(states)
        np.testing.assert_allclose(jnp.var(along, axis=0), found.variances[:, :2], rtol=1e-9)
        np.testing.assert_allclose(jnp.sum(along**2, axis=2), jnp.sum((states - found.mean[None]) ** 2, 2), rtol=1e-7)


def test_a_trajectory_at_rest_has_no_components():
    found = principal_components(jnp.ones((5, 2, 3)))
    np.testing.assert_array_equal(found.explained, 0.0)


@pytest.mark.parametrize("name", ["VP", "SubVP", "EDM", "RectifiedFlow"])
def test_data_at_a_point_never_leave_the_rotation_plane(name):
    """x_t = alpha m + sigma eps, in float32, with coefficients that know neither m nor eps."""
    sde, rng = PROCESSES[name], np.random.default_rng(1)
    gaussian = sdelab.exact.Gaussian(rng.normal(size=(4, 4)).astype(np.float32), np.float32(0.0))
    times = np.linspace(sde.t_max, sde.t_min, 30)
    x_T = jnp.asarray(sde.prior_std() * rng.normal(size=(3, 4, 4)), jnp.float32)
    states = GaussianFlow(sde, gaussian).trajectory(x_T, times)
    plane = rotation_plane(states)
    np.testing.assert_allclose(plane.residual, 0.0, atol=2e-6)
    expected = jnp.broadcast_to(rotation_coefficients(sde, times)[:, None], (30, 3, 2))
    lengths = jnp.linalg.norm(states[jnp.asarray([0, -1])].reshape(2, 3, 16), axis=2).T[None]
    largest = float(jnp.max(lengths))  # what is rounded are the vectors c_T x_T and c_0 x_0
    np.testing.assert_allclose(plane.coefficients * lengths, expected * lengths, atol=2e-6 * largest, rtol=1e-5)


@pytest.mark.slow
def test_rotation_is_a_projection_and_on_vp_a_turn():
    """What is left is across both ends. To t = 0 data at a point turn by sine and cosine, but for alpha(t_max)."""
    times = np.linspace(1.0, 0.0, 30)
    sine, cosine = rotation_coefficients(SDE, times).T
    np.testing.assert_allclose(sine, SDE.sigma(times), rtol=1e-4)
    np.testing.assert_allclose(cosine, SDE.alpha(times), rtol=1e-4, atol=1e-2)
    variances = np.linspace(0.0, 4.0, 16, dtype=np.float32)
    flow = GaussianFlow(SDE, sdelab.exact.Gaussian(np.zeros((4, 4), np.float32), variances))
    states = flow.trajectory(jax.random.normal(jax.random.key(0), (3, 4, 4)), times)
    plane, states = rotation_plane(states), np.asarray(states).reshape(30, 3, 16)
    ends = states[[0, -1]]
    outside = states - np.einsum("tbk,kbd->tbd", plane.coefficients, ends)
    across = np.linalg.norm(outside, axis=2) / np.linalg.norm(states, axis=2)
    np.testing.assert_allclose(across, plane.residual, atol=1e-5)
    assert 0.02 < across.max() < 0.6
    np.testing.assert_allclose(np.einsum("tbd,kbd->tbk", outside, ends), 0.0, atol=1e-4)
    np.testing.assert_allclose(plane.coefficients[0], [[1.0, 0.0]] * 3, atol=1e-4)
    np.testing.assert_allclose(plane.coefficients[-1], [[0.0, 1.0]] * 3, atol=1e-4)


def test_parallel_ends_share_the_least_coefficients():
    x = jnp.asarray([[[1.0, 2.0]], [[3.0, 6.0]], [[-2.0, -4.0]]])  # one line, unit ends opposite
    plane = rotation_plane(x)
    np.testing.assert_allclose(plane.residual, 0.0, atol=1e-6)
    np.testing.assert_allclose(plane.coefficients[:, 0], [[0.5, -0.25], [1.5, -0.75], [-1.0, 0.5]], rtol=1e-5)


@pytest.mark.slow
def test_features_of_gaussian_data_emerge_when_theory_says():
    """Large ones first: along exact trajectories, with the denoised images of the exact score."""
    flow = rotated_flow(SDE)
    x_T = flow.gaussian.diffused(SDE, SDE.t_max).sample(jax.random.key(0), 4000)
    process, times = sdelab.ProbabilityFlow(SDE, flow.gaussian.score(SDE)), grids.quadratic(SDE, 200, t_min=0.0)
    images = denoised(process, times, flow.trajectory(x_T, times))
    seen = emergence(times, images, jnp.asarray(ROTATION.T, jnp.float32))
    theory = gaussian_variances(SDE, VARIANCES.astype(np.float32), times)
    np.testing.assert_allclose(seen.variances, theory, rtol=0.1, atol=1e-6)  # four errors of 4000 draws
    reached = seen.emergence_times()
    expected = gaussian_emergence_times(SDE, VARIANCES.astype(np.float32))
    np.testing.assert_allclose(reached, expected, rtol=0.002)
    assert bool(jnp.all(jnp.diff(reached) < 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VP", "EDM", "FromSchedule"])
def test_emergence_times_are_where_the_share_is_reached(name):
    """From the start what is large enough, never what has no variance."""
    sde, share, variances = PROCESSES[name], 0.9, np.float32([25.0, 1.0, 1e-2, 1e-3])
    t = gaussian_emergence_times(sde, np.append(variances, np.float32([0.0, 1e12])), share)
    shares = jnp.diagonal(gaussian_variances(sde, variances, t[:4])) / variances
    np.testing.assert_allclose(shares, share, rtol=1e-4)
    np.testing.assert_allclose(t[4:], np.float32([0.0, sde.t_max]), rtol=1e-6)


def test_emergence_is_read_between_the_times():
    times, rise = jnp.asarray([1.0, 0.5, 0.0]), jnp.asarray([0.0, 0.4, 1.0])
    samples = jnp.stack([rise, -rise, 0.0 * rise], axis=1)[..., None]
    seen = emergence(times, samples, jnp.ones((1, 1)))
    np.testing.assert_allclose(seen.shares[:, 0], rise**2, rtol=1e-6)
    np.testing.assert_allclose(seen.emergence_times(0.58), 0.25, rtol=1e-5)  # halfway from 0.16 to 1
    still = emergence(times, jnp.asarray([[[0.0], [1.0], [0.0]]] * 3), jnp.ones((1, 1)))
    np.testing.assert_array_equal(still.emergence_times(0.58), 1.0)


@pytest.mark.slow
def test_sensitivity_is_that_of_theory():
    """Along each eigenvector; by a solver of our own on a grid, by diffrax's with tolerances, and with the noise held fixed."""
    flow = rotated_flow(SDE)
    process = sdelab.ProbabilityFlow(SDE, flow.gaussian.score(SDE))
    x, directions = jnp.ones((4, 4)), jnp.asarray(ROTATION.T, jnp.float32)
    for t in (1.0, 0.4, 0.05):
        expected = flow.push(directions, t, SDE.t_min)
        factors = growth(SDE, VARIANCES.astype(np.float32), t, SDE.t_min)
        np.testing.assert_allclose(jnp.linalg.norm(expected, axis=1), factors, rtol=1e-4)
        on_grid = sensitivity(process, x, directions, solver=solvers.Heun(), grid=grids.log_snr(SDE, 200, t_max=t))
        np.testing.assert_allclose(on_grid, expected, rtol=2e-3, atol=2e-3)
        steps = dict(grid=[t, SDE.t_min], rtol=1e-5, atol=1e-5)
        adaptive = sensitivity(process, x, directions, solver=diffrax.Tsit5(), **steps)
        np.testing.assert_allclose(adaptive, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_sensitivity_of_a_stochastic_run_is_its_difference_at_fixed_noise():
    score = sdelab.exact.GaussianMixture(np.float32([[-1.0, 0.0], [1.0, 0.5]]), np.float32(0.1)).score(SDE)
    process, x = sdelab.ReverseSDE(SDE, score), jax.random.normal(jax.random.key(0), (5, 2))
    direction = jnp.asarray([[1.0, 0.0]] * 5)
    run = dict(solver=solvers.Ancestral(), grid=grids.uniform(SDE, 5, t_max=0.5))
    slope = sensitivity(process, x, direction, key=jax.random.key(1), **run)
    h = 1e-2
    there, back = (sdelab.sample(jax.random.key(1), process, x + s * h * direction, **run) for s in (1, -1))
    np.testing.assert_allclose(slope, (there - back) / (2 * h), atol=5e-3 * float(jnp.max(jnp.abs(slope))))


STATES, TIMES = jnp.ones((3, 2, 2)), jnp.asarray([1.0, 0.5, 0.1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: principal_components(jnp.ones((1, 2, 2))), ValueError, "two times"),
        (lambda: principal_components(STATES, 3), ValueError, "count = 3"),
        (lambda: rotation_plane(jnp.ones((3, 2, 1))), ValueError, "two dimensions"),
        (lambda: rotation_coefficients(SDE, jnp.asarray(0.5)), ValueError, "times has shape"),
        (lambda: denoised(sdelab.ProbabilityFlow(SDE, lambda x, t: -x), TIMES[:2], STATES), ValueError, "times has shape"),
        (lambda: emergence(TIMES, STATES, jnp.ones((1, 3))), ValueError, "features"),
        (lambda: emergence(TIMES, STATES[:, :1], jnp.ones((1, 2))), ValueError, "one sample"),
        (lambda: emergence(TIMES, STATES, jnp.ones((1, 2))).emergence_times(1.0), ValueError, "share = 1.0"),
        (lambda: gaussian_emergence_times(SDE, -1.0), ValueError, "variances"),
        (lambda: sensitivity(sdelab.ProbabilityFlow(SDE, lambda x, t: -x), jnp.ones((1, 2)), jnp.ones((2,)),
                             solver=solvers.Heun(), grid=[0.5, 0.1]), ValueError, "direction has shape"),
        (lambda: sensitivity(sdelab.ProbabilityFlow(SDE, lambda x, t: -x), jnp.ones((1, 2)), jnp.ones((1, 2)),
                             solver=solvers.Heun(), grid=[0.5, 0.1], adjoint=1), TypeError, "adjoint"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(unhooked, call, error, message):
    with pytest.raises(error, match=message):
        call()
