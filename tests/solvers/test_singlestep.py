"""DDIM, its stochastic family, DPM-Solver and DPM-Solver++ by single steps, and Heun: orders, invariance, the step to the data."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from sdelab.solvers.base import Interval
from sdelab.solvers.ddim import DDIM, StochasticDDIM
from sdelab.solvers.dpm_solver import DPMSolver1, DPMSolver2, DPMSolver3
from sdelab.solvers.dpm_solver_plus_plus import DPMSolverPlusPlus2S, DPMSolverPlusPlus3S
from sdelab.solvers.newton import VaryingCoefficients
from sdelab.solvers.singlestep import AllPoints
from sdelab.testing.order import flow_problem, steps_for, weak_convergence
from tests.solvers.cases import PROCESSES

RULES = {
    "DDIM": DDIM(),
    "StochasticDDIM": StochasticDDIM(),
    "DPMSolver2": DPMSolver2(),
    "DPMSolver3": DPMSolver3(),
    "DPMSolverPlusPlus2S": DPMSolverPlusPlus2S(),
    "DPMSolverPlusPlus3S": DPMSolverPlusPlus3S(),
    "Heun": solvers.Heun(),
}
SUB_STEPS = (0.0, 1 / 3, 1 / 2, 2 / 3)  # of each interval: its start, and the inner times of all rules
ENDS = (10.0, 1.0, 0.2)  # sigma / alpha


def process_of(sde, solver, score=None, level=0.6):
    data = sdelab.exact.Gaussian(jnp.array([1.0, 0.5]), jnp.array([0.09, 1.4]))
    score = data.score(sde) if score is None else score
    return sdelab.ReverseSDE(sde, score, level) if solver.kind == "stochastic" else sdelab.ProbabilityFlow(sde, score)


def intervals(sde, ends=ENDS, dtype=jnp.float64):
    """A grid by its noise levels: for every step the interval, without noise, and all of the inner times."""
    levels = np.log(ends)
    fine = [a + f * (b - a) for a, b in itertools.pairwise(levels) for f in SUB_STEPS]
    times = jnp.asarray(grids.from_log_snr(sde, -2.0 * np.array([*fine, levels[-1]])), dtype)
    return [times[i : i + len(SUB_STEPS) + 1] for i in range(0, len(fine), len(SUB_STEPS))]


def go(solver, process, x, times, noise=None):
    """The step over one of the `intervals`."""
    inner = jnp.stack([times[SUB_STEPS.index(f)] for f in solver.inner_fractions()] or [times[0]])
    noise = jnp.zeros((1, *x.shape), x.dtype) if noise is None else noise
    return solver.advance(
        process, x, Interval(times[0], times[-1], jnp.zeros((), int), jnp.zeros((), bool), noise, inner), None
    ).x


@pytest.mark.slow
def test_a_rule_is_the_same_on_every_process():
    """In lambda, and divided by alpha, all affine processes are one: the result on the same noise levels is that on EDM."""
    y_T, noise = np.array([[9.0, -3.0], [2.0, 7.0]]), np.array([[[0.3, -1.0], [0.5, 0.2]]])
    results = {}
    with jax.enable_x64(True), jax.disable_jit():
        for label, sde in PROCESSES.items():
            with jax.disable_jit(False):
                steps = intervals(sde)
            for name, solver in RULES.items():
                x, process = sde.alpha(steps[0][0]) * jnp.asarray(y_T), process_of(sde, solver)
                for times in steps:
                    x = go(solver, process, x, times, jnp.asarray(noise))
                results[label, name] = np.asarray(x / sde.alpha(steps[-1][-1]))
    for label, name in results:
        np.testing.assert_allclose(
            results[label, name], results["EDM", name], rtol=1e-11, atol=1e-12, err_msg=f"{label} {name}"
        )


@pytest.mark.parametrize("label", ["VP", "VPCosine", "SubVP", "EDM", "RectifiedFlow", "FromSchedule"])
def test_the_step_to_the_data_is_the_denoised_state(label):
    """Where sigma(t1) = 0 the exact first-order step is all that is left, with one evaluation and nothing divided by sigma."""
    sde, x = PROCESSES[label], jnp.array([[1.2, -0.3], [0.1, 0.8]])
    times = jnp.asarray([0.3, 0.0, 0.0, 0.0, 0.0])
    with jax.disable_jit():
        for name, solver in RULES.items():
            process, calls = counted(sde, solver)
            x1 = go(solver, process, x, times, jnp.ones((1, *x.shape)))
            assert len(calls) == solver.evaluations(1, True) == 1, name
            exact = sde.alpha(0.0) * sde.denoise(x, times[0], process.score(x, times[0]))
            np.testing.assert_allclose(x1, exact, rtol=2e-5, atol=2e-6, err_msg=name)


def counted(sde, solver):
    """A process, and the list of its evaluations as they happen; steps that are not compiled take one branch only."""
    exact, calls = process_of(sde, solver).score, []

    def score(x, t):
        calls.append(t)
        return exact(x, t)

    return process_of(sde, solver, score), calls


def test_evaluations_are_as_many_as_stated():
    with jax.disable_jit():
        times = jnp.asarray([0.5, 0.4, 0.35, 0.3, 0.2])
        for name, solver in RULES.items():
            process, calls = counted(sdelab.VP(), solver)
            go(solver, process, jnp.ones((2, 2)), times)
            assert (
                len(calls) == solver.evaluations(1, False) == solver.evaluations(8, True) - solver.evaluations(7, True)
            ), name


@pytest.mark.slow
def test_float32_loses_nothing_but_rounding():
    """Three large steps and a tiny one, against the same in float64."""
    sde, x = sdelab.VP(), np.array([[0.9, -1.3], [0.2, 0.7]])
    ends = (10.0, 2.0, 0.02, 0.0199)
    with jax.enable_x64(True):
        exact = [np.asarray(times) for times in intervals(sde, ends)]
    for name, solver in RULES.items():
        found = []
        for dtype in (jnp.float32, jnp.float64):
            with jax.enable_x64(dtype == jnp.float64), jax.disable_jit():
                state, process = jnp.asarray(x, dtype), process_of(sde, solver)
                for times in exact:
                    state = go(solver, process, state, jnp.asarray(times, dtype), jnp.ones((1, *x.shape), dtype))
                assert state.dtype == dtype
                found.append(np.asarray(state, np.float64))
        np.testing.assert_allclose(found[0], found[1], rtol=0, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("end", [0.499, 0.05, 1e-4])
def test_the_family_of_ddim_joins_ddim_and_ancestral(end):
    """eta = 0 is DDIM and eta = 1 the ancestral step, to rounding, in steps that are tiny, large and very large."""
    with jax.enable_x64(True), jax.disable_jit():
        x, noise = jnp.array([[1.2, -0.3]], jnp.float64), jnp.array([[[0.7, -1.1]]], jnp.float64)
        for sde in (sdelab.VP(), sdelab.EDM(), sdelab.SubVP(), sdelab.VE()):
            times = jnp.asarray([0.5, 0.4, 0.35, 0.3, end])
            flow, (none, full) = (
                process_of(sde, DDIM()),
                (process_of(sde, StochasticDDIM(), level=c) for c in (0.0, 1.0)),
            )
            pairs = ((none, DDIM(), flow), (full, solvers.Ancestral(), full))
            for process, rule, other in pairs:
                ours, theirs = go(StochasticDDIM(), process, x, times, noise), go(rule, other, x, times, noise)
                np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_the_family_of_ddim_has_the_variance_of_its_formula():
    """x1 = alpha1 D + sqrt(sigma1^2 - eta^2 var) eps + eta sqrt(var) z: Song et al. (2020), eq. 12 and 16, from the kernel."""
    with jax.enable_x64(True), jax.disable_jit():
        sde, eta, times = sdelab.VP(), 0.6, jnp.asarray([0.5, 0.4, 0.35, 0.3, 0.2])
        x, z = jnp.array([[1.2, -0.3]], jnp.float64), jnp.array([[0.7, -1.1]], jnp.float64)
        process = process_of(sde, StochasticDDIM(), level=eta)
        x1 = go(StochasticDDIM(), process, x, times, z[None])
        (a0, s0), (a1, s1) = ((float(sde.alpha(t)), float(sde.sigma(t))) for t in (times[0], times[-1]))
        D = np.asarray(process.denoise(x, times[0]))
        std = eta * np.sqrt((1 - a1**2) / (1 - a0**2) * (1 - a0**2 / a1**2))  # their eq. 16, alpha^2 for their alpha
        np.testing.assert_allclose(
            x1, a1 * D + np.sqrt(s1**2 - std**2) * (np.asarray(x) - a0 * D) / s0 + std * np.asarray(z), rtol=1e-12
        )


@functools.partial(jax.jit, static_argnums=2)
def _end_of_a_large_step(eta, x, end):
    sde = sdelab.VP()
    times = jnp.asarray([1.0, 0.4, 0.35, 0.3, end], x.dtype)
    return jnp.sum(
        go(StochasticDDIM(), process_of(sde, StochasticDDIM(), level=eta), x, times, jnp.ones((1, *x.shape)))
    )


@pytest.mark.parametrize("end", [1e-3, 0.0])
def test_the_family_of_ddim_is_differentiable_in_eta(end):
    """Also at its ends, and where a step is so long that nothing of the old noise is left, or the noise ends."""
    x, h = jnp.array([[1.2, -0.3]]), 1e-2
    slopes = [float(jax.grad(_end_of_a_large_step)(eta, x, end)) for eta in (0.0, 0.5, 1.0)]
    assert np.all(np.isfinite(slopes))
    numeric = (_end_of_a_large_step(0.5 + h, x, end) - _end_of_a_large_step(0.5 - h, x, end)) / (2 * h)
    np.testing.assert_allclose(slopes[1], numeric, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_gradients_through_a_grid_that_ends_at_the_data():
    """Of the samples, by the start and by the data, against finite differences; by the process they are finite."""
    with jax.enable_x64(True):
        x_T, grid = jnp.array([[0.4, -1.1]], jnp.float64), [1.0, 0.5, 0.1, 0.0]

        @jax.jit
        @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
        def loss(shift, mean, beta_max):
            sde = sdelab.VP(beta_max=beta_max)
            score = sdelab.exact.Gaussian(mean * jnp.ones(2), jnp.array([0.3, 1.5])).score(sde)
            flow = sdelab.ProbabilityFlow(sde, score)
            return jnp.sum(sdelab.sample(None, flow, x_T + shift, solver=DPMSolver3(), grid=grid) ** 3)

        at, h = np.array([0.1, 0.7, 20.0]), 1e-5
        slopes = np.array(loss(*at)[1])
        for i in range(2):
            up, down = (loss(*(at + sign * h * np.eye(3)[i]))[0] for sign in (1, -1))
            np.testing.assert_allclose(slopes[i], (up - down) / (2 * h), rtol=1e-6)
    assert np.all(np.isfinite(slopes))
    assert slopes[2] != 0.0


VARIANTS = {
    "DPMSolver2-taylor": DPMSolver2(0.3, VaryingCoefficients()),
    "DPMSolver3-all-points": DPMSolver3(last=AllPoints()),
    "DPMSolver3-elsewhere": DPMSolver3(0.3, 0.8),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.slow
def test_order_of_a_variant(name):
    """Of what the catalogue does not have (test_orders.py has the rest), on one process: they are the same on the others."""
    solver = VARIANTS[name]
    measured = flow_problem(sdelab.VP()).convergence(solver, steps_for(solver.claimed_order()))
    assert solver.claimed_order() - 0.2 <= measured.order <= solver.claimed_order() + 0.2, measured


@pytest.mark.slow
def test_weak_order():
    """The family of DDIM, with eta the stochasticity of the reverse SDE."""
    for eta in (0.3, 0.7):
        measured = weak_convergence(StochasticDDIM(), sdelab.VP(), (128, 256), stochasticity=eta)
        assert measured.order >= 0.8, (eta, measured)


def test_claims():
    assert DPMSolver1 is DDIM
    assert (DPMSolver3().claimed_order(), DPMSolver3(0.3, 0.8).claimed_order()) == (3, 2)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: DPMSolver2(0.0), ValueError, "r1 = 0.0"),
        (lambda: DPMSolver2(1.5), ValueError, "r1 = 1.5"),
        (lambda: DPMSolver2(linear_term=1.0), TypeError, "linear_term"),
        (lambda: DPMSolver3(0.7, 0.6), ValueError, "r1 = 0.7 must be less than r2 = 0.6"),
        (lambda: DPMSolverPlusPlus2S(-0.5), ValueError, "r1 = -0.5"),
        (lambda: DPMSolverPlusPlus3S(1 / 3, 1.2), ValueError, "r2 = 1.2"),
        (lambda: DPMSolver3(last="taylor"), TypeError, "last"),
        (lambda: StochasticDDIM().check(process_of(sdelab.VP(), StochasticDDIM(), level=1.5)), ValueError, "= 1.5"),
        (lambda: StochasticDDIM().check(process_of(sdelab.VP(), DDIM())), TypeError, "stochastic solver"),
        (lambda: DPMSolver3().check(process_of(sdelab.VP(), StochasticDDIM())), TypeError, "deterministic solver"),
        (
            lambda: solvers.Ancestral().check(process_of(sdelab.VP(), StochasticDDIM(), level=0.5)),
            ValueError,
            "StochasticDDIM",
        ),
    ],
)
def test_errors(unhooked, make, error, words):
    with pytest.raises(error, match=words):
        make()
