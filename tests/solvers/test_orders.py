"""Observed orders of convergence on Gaussian data, in float64, on grids uniform in log-SNR with sigma(t1) > 0.

The flow of a Gaussian is known in closed form: x(t) - m(t) scales with the standard deviation of the marginal.
For stochastic methods the steps are affine, so mean and variance of the result are propagated exactly, through the
public `sample`: one sample per source of randomness, each with that source alone switched on. No Monte Carlo.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from tests.solvers.cases import PROCESSES

MEAN, VARIANCE = 0.7, 0.3
ENDS = {"EDM": (5.0, 0.05), "VE": (0.8, 0.2), "VEExact": (0.8, 0.2)}  # elsewhere (0.9, 0.05)
NAMES = [name for name in PROCESSES if name != "FromSchedule"]


def marginal(sde, t):
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    return alpha * MEAN, np.sqrt(alpha**2 * VARIANCE + sigma**2)


def gaussian(sde):
    return sdelab.exact.Gaussian(jnp.full((1,), MEAN), jnp.asarray(VARIANCE)).score(sde)


def observed(steps, errors):
    """The slope of log error against log steps over the errors inside the window, at least two of them.

    Over the window and not between neighbours: an error that changes its sign passes through zero on the way.
    """
    errors, steps = np.asarray(errors), np.asarray(steps)
    inside = (errors < 1e-2) & (errors > 1e-11)
    assert np.sum(inside) >= 2, f"fewer than two errors in the window: {errors}"
    return -np.polyfit(np.log(steps[inside]), np.log(errors[inside]), 1)[0]


DETERMINISTIC = [
    ("sdelab.Heun", solvers.Heun(), 2, (16, 32, 64, 128)),
    ("diffrax.Euler", diffrax.Euler(), 1, (64, 128, 256, 512)),
    ("diffrax.Heun", diffrax.Heun(), 2, (32, 64, 128, 256)),
    ("diffrax.Midpoint", diffrax.Midpoint(), 2, (32, 64, 128, 256)),
    ("diffrax.Ralston", diffrax.Ralston(), 2, (32, 64, 128, 256)),
    ("diffrax.Bosh3", diffrax.Bosh3(), 3, (32, 64, 128)),
    ("diffrax.Tsit5", diffrax.Tsit5(), 5, (16, 32, 64)),
    ("diffrax.Dopri5", diffrax.Dopri5(), 5, (16, 32, 64)),
    ("diffrax.Kvaerno3", diffrax.Kvaerno3(), 3, (32, 64, 128)),
]


def every_process_for_ours(rules):
    """Ours on every process; diffrax's, whose orders are its own affair, on two."""
    return [
        pytest.param(solver, *rest, name, id=f"{label}-{name}")
        for label, solver, *rest in rules
        for name in (("VP", "EDM") if label.startswith("diffrax") else NAMES)
    ]


@pytest.mark.parametrize(("solver", "claimed", "steps", "name"), every_process_for_ours(DETERMINISTIC))
@pytest.mark.slow
def test_deterministic_order(solver, claimed, steps, name):
    with jax.enable_x64(True):
        sde = PROCESSES[name]
        start, end = ENDS.get(name, (0.9, 0.05))
        (mean0, std0), (mean1, std1) = marginal(sde, start), marginal(sde, end)
        x_T = jnp.array([[mean0 + 1.3 * std0], [mean0 - 0.4 * std0]])
        exact = mean1 + (x_T - mean0) * std1 / std0
        errors = []
        for n in steps:
            grid = grids.log_snr(sde, n, t_min=end, t_max=start)
            x = sdelab.sample(None, sdelab.ProbabilityFlow(sde, gaussian(sde)), x_T, solver=solver, grid=grid)
            errors.append(float(jnp.max(jnp.abs(x - exact))))
    assert observed(steps, errors) >= claimed - 0.2, errors


def propagate(sde, solver, n, start, end):
    """Mean and variance of the result, exactly, for x_T drawn from the marginal at `start`."""
    draws = solver.draws() if isinstance(solver, solvers.AbstractReverseSolver) else (1 if is_plain(solver) else 2)
    sources = n * draws
    noise = np.zeros((n, draws, sources + 2, 1))
    for i in range(n):
        for j in range(draws):
            noise[i, j, 2 + i * draws + j] = 1.0
    mean, std = marginal(sde, start)
    x_T = np.full((sources + 2, 1), mean)
    x_T[1] += std
    grid = grids.log_snr(sde, n, t_min=end, t_max=start)
    process = sdelab.ReverseSDE(sde, gaussian(sde))
    x = np.asarray(
        sdelab.sample(
            jax.random.key(0),
            process,
            jnp.asarray(x_T),
            solver=solver,
            grid=grid,
            noise=solvers.StoredNoise(jnp.asarray(noise)),
        )
    )[:, 0]
    return x[0], np.sum((x[1:] - x[0]) ** 2)


def is_plain(solver):
    return not isinstance(solver, diffrax.AbstractSRK)


STOCHASTIC = [
    ("EulerMaruyama", solvers.EulerMaruyama(), 1),
    ("ReverseDiffusion", solvers.ReverseDiffusion(), 1),
    ("Ancestral", solvers.Ancestral(), 1),
    ("diffrax.Euler", diffrax.Euler(), 1),
    ("diffrax.Heun", diffrax.Heun(), 1),
    ("diffrax.SRA1", diffrax.SRA1(), 2),
    ("diffrax.ShARK", diffrax.ShARK(), 2),
]


@pytest.mark.parametrize(("solver", "claimed", "name"), every_process_for_ours(STOCHASTIC))
@pytest.mark.slow
def test_weak_order(solver, claimed, name):
    with jax.enable_x64(True):
        sde = PROCESSES[name]
        start, end = ENDS.get(name, (0.9, 0.05))
        mean, std = marginal(sde, end)
        steps, errors = (64, 128, 256, 512), []
        for n in steps:
            ours = propagate(sde, solver, n, start, end)
            errors.append(max(abs(ours[0] - mean), abs(ours[1] - std**2)))
    assert observed(steps, errors) >= claimed - 0.2, errors


def test_the_exact_posterior_step_is_exact_for_a_point():
    """Where the data are a point, the ancestral step has the marginal's mean and variance, whatever the step."""
    with jax.enable_x64(True):
        for sde in PROCESSES.values():
            point = sdelab.exact.Gaussian(jnp.full((1,), MEAN), jnp.asarray(0.0)).score(sde)
            t0, t1 = (jnp.asarray(t) for t in ((0.8, 0.1) if sde.t_max <= 1 else (5.0, 0.1)))
            mean0, std0 = float(sde.alpha(t0)) * MEAN, float(sde.sigma(t0))
            x = jnp.array([[mean0], [mean0 + std0], [mean0]])
            noise = jnp.array([[0.0], [0.0], [1.0]])[None]
            interval = solvers.Interval(t0, t1, jnp.zeros((), int), jnp.zeros((), bool), noise)
            y = solvers.Ancestral().advance(sdelab.ReverseSDE(sde, point), x, interval, None).x[:, 0]
            np.testing.assert_allclose(y[0], sde.alpha(t1) * MEAN, rtol=1e-10)
            np.testing.assert_allclose((y[1] - y[0]) ** 2 + (y[2] - y[0]) ** 2, sde.sigma(t1) ** 2, rtol=1e-9)


def test_transition_is_the_forward_process():
    """f and G of `Transition` carry the marginal at t1 to the marginal at t0."""
    with jax.enable_x64(True):
        for sde in PROCESSES.values():
            t0, t1 = (jnp.asarray(t) for t in ((0.8, 0.1) if sde.t_max <= 1 else (5.0, 0.1)))
            interval = solvers.Interval(t0, t1, jnp.zeros((), int), jnp.zeros((), bool), jnp.zeros((1, 1, 1)))
            f, G = solvers.Transition().forward(sde, jnp.ones((1, 1)), interval)
            scale = 1.0 + f[0, 0]
            np.testing.assert_allclose(scale * sde.alpha(t1), sde.alpha(t0), rtol=1e-10)
            np.testing.assert_allclose(scale**2 * sde.sigma(t1) ** 2 + G**2, sde.sigma(t0) ** 2, rtol=1e-10)


def test_steps_to_time_zero_do_not_divide_by_sigma():
    """Heun and Ancestral end at t = 0 with the denoised state; for a Gaussian that is known."""
    for sde in (sdelab.VP(), sdelab.EDM(), sdelab.SubVP(), sdelab.RectifiedFlow()):
        score = gaussian(sde)
        t = jnp.asarray(0.3)
        interval = solvers.Interval(t, 0.0 * t, jnp.zeros((), int), jnp.ones((), bool), jnp.ones((1, 4, 1)))
        x = jnp.linspace(-1.0, 1.0, 4)[:, None]
        for solver, process in (
            (solvers.Heun(), sdelab.ProbabilityFlow(sde, score)),
            (solvers.Ancestral(), sdelab.ReverseSDE(sde, score)),
        ):
            np.testing.assert_allclose(solver.advance(process, x, interval, None).x, score.denoise(x, t), rtol=1e-5)
