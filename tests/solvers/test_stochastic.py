"""Solvers of the reverse SDE: weak orders at any stochasticity, what is exact, and what agrees with what, in float64."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from sdelab.solvers.ancestral_step import AncestralStep
from sdelab.solvers.catalog import STOCHASTIC
from sdelab.solvers.churn import Churn
from sdelab.solvers.ddim import DDIM, StochasticDDIM
from sdelab.solvers.dpm_solver import DPMSolver2
from sdelab.solvers.dpm_solver_multistep import DPMSolverPlusPlus2M
from sdelab.solvers.exponential_euler import ExponentialEuler, FrozenNoise
from sdelab.solvers.newton import VaryingCoefficients
from sdelab.solvers.sde_dpm_solver import SDEDPMSolverPlusPlus1, SDEDPMSolverPlusPlus2M
from sdelab.testing.order import two_components, walk, weak_convergence
from tests.solvers.cases import PROCESSES

ANY = {  # any stochasticity, with the weak order
    "EulerMaruyama": (solvers.EulerMaruyama(), 1),
    "ReverseDiffusion": (solvers.ReverseDiffusion(), 1),
    "ExponentialEuler": (ExponentialEuler(), 1),
    "ExponentialEuler-noise": (ExponentialEuler(FrozenNoise()), 1),
    "SDEDPMSolverPlusPlus1": (SDEDPMSolverPlusPlus1(), 1),
    "SDEDPMSolverPlusPlus2M": (SDEDPMSolverPlusPlus2M(), 2),
    "SDEDPMSolverPlusPlus2M-exact": (SDEDPMSolverPlusPlus2M(VaryingCoefficients()), 2),
    "AncestralStep-Heun": (AncestralStep(solvers.Heun()), 2),
    "AncestralStep-DPMSolver2": (AncestralStep(DPMSolver2()), 2),
    "diffrax.SEA": (diffrax.SEA(), 1),
    "diffrax.ShARK": (diffrax.ShARK(), 2),
    "diffrax.SRA1": (diffrax.SRA1(), 2),
    "diffrax.SPaRK": (diffrax.SPaRK(), 2),
    "diffrax.SlowRK": (diffrax.SlowRK(), 2),
}
CATALOGUED = {repr(solver) for solver in STOCHASTIC.values()}
WRAPPED = {"DDIM": (Churn(DDIM(), 5.0), 1), "DPMSolver2": (Churn(DPMSolver2(), 5.0, s_max=2.0), 2)}
CASES = [pytest.param(name, marks=() if name == "SDEDPMSolverPlusPlus2M" else pytest.mark.slow) for name in ANY]


@pytest.mark.parametrize("name", CASES)
def test_weak_order(name):
    """On Gaussian data, exactly propagated; with the reverse SDE's own noise only what test_orders.py does not measure.

    The marginals of `AncestralStep` have the order of what it wraps.
    """
    solver, order = ANY[name]
    steps = (64, 128, 256) if order == 1 else (32, 64, 128)
    if name == "ExponentialEuler-noise":  # at c = 1 two errors of order 1 all but cancel in a few hundred steps
        steps = (256, 512, 1024)
    for c in (0.0, 0.5) if repr(solver) in CATALOGUED else (0.0, 0.5, 1.0):
        found = weak_convergence(solver, PROCESSES["VP"], steps, stochasticity=c)
        print(f"{name}, c = {c}: weak order {found.order:.2f}, claimed {order}")
        assert found.order >= order - 0.2, (c, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPED)
def test_weak_order_of_churn_around_another_solver(name):
    """The marginals have the order of what it wraps, where some steps have no noise too."""
    solver, order = WRAPPED[name]
    steps = (64, 128, 256) if order == 1 else (32, 64, 128)
    assert weak_convergence(solver, PROCESSES["VP"], steps).order >= order - 0.2


def one_step(solver, process, x, t0, t1, noise):
    """The state after a single step, the first of a grid of one."""
    times = jnp.stack([jnp.asarray(t0), jnp.asarray(t1)])
    inner = solver.inner_times(process, times[:1], times[1:])[0]
    index = jnp.zeros((), jnp.int32)
    interval = solvers.Interval(times[0], times[1], index, jnp.zeros((), bool), noise, inner)
    return solver.advance(process, x, interval, solver.initial_memory(process, x)).x


def ends(sde):
    return (0.8, 0.1) if sde.t_max <= 1 else (5.0, 0.1)


SOME = [name if name == "SubVP" else pytest.param(name, marks=pytest.mark.slow) for name in PROCESSES]
EXACT_FOR_A_POINT = [
    (Churn(DDIM(), 0.3), 1.0),
    (AncestralStep(DDIM()), 0.7),
    (SDEDPMSolverPlusPlus1(), 0.7),
    (SDEDPMSolverPlusPlus2M(), 0.7),
]


@pytest.mark.parametrize("process", SOME)
def test_where_the_data_are_a_point_a_step_of_any_length_keeps_the_marginal(process):
    """D is a constant, and the flow is followed exactly: whatever the noise, mean and variance are those of the kernel."""
    sde, point = PROCESSES[process], 0.7
    score = lambda x, t: (sde.alpha(t) * point - x) / sde.sigma(t) ** 2  # noqa: E731
    with jax.enable_x64(True):
        t0, t1 = ends(sde)
        mean, std = float(sde.alpha(t0)) * point, float(sde.sigma(t0))
        x = jnp.array([[mean], [mean + std], [mean]])
        noise = jnp.array([[0.0], [0.0], [1.0]])[None]

        @jax.jit
        def steps(x):
            return [one_step(s, sdelab.ReverseSDE(sde, score, c), x, t0, t1, noise)[:, 0] for s, c in EXACT_FOR_A_POINT]

        for y in steps(x):
            np.testing.assert_allclose(y[0], sde.alpha(t1) * point, rtol=1e-9)
            np.testing.assert_allclose((y[1] - y[0]) ** 2 + (y[2] - y[0]) ** 2, sde.sigma(t1) ** 2, rtol=1e-9)
            assert abs(float(y[2] - y[0])) > 0.05 * float(sde.sigma(t1))  # and there was noise


@pytest.mark.parametrize("process", SOME)
def test_exponential_euler_is_exact_where_there_is_no_score(process):
    """One step has the scale and the variance of two: what is left is linear, and integrated exactly."""
    with jax.enable_x64(True):
        sde = PROCESSES[process]
        t0, t1 = ends(sde)
        reverse = sdelab.ReverseSDE(sde, lambda x, t: 0.0 * x, 0.6)
        x, noise = jnp.array([[1.0], [0.0]]), jnp.array([[0.0], [1.0]])[None]
        step = jax.jit(lambda start, end: one_step(ExponentialEuler(), reverse, x, start, end, noise)[:, 0])

        def numbers(start, end):
            return tuple(map(float, step(start, end)))

        middle = 0.4 * t0 + 0.6 * t1
        (scale, std), (first, std1), (second, std2) = numbers(t0, t1), numbers(t0, middle), numbers(middle, t1)
        np.testing.assert_allclose(scale, first * second, rtol=1e-12)
        np.testing.assert_allclose(std**2, second**2 * std1**2 + std2**2, rtol=1e-10)
        h = 1e-6 * t1
        np.testing.assert_allclose(numbers(t1, t1 - h)[1], 0.6 * sde.diffusion(t1) * np.sqrt(h), rtol=1e-5)


def mixture_walk(solver, c, sde, grid, seed=0):
    """The end of a run on a mixture with the same noise for all solvers that draw once a step."""
    rng = np.random.default_rng(seed)
    x, noise = jnp.asarray(rng.standard_normal((6, 2))), jnp.asarray(rng.standard_normal((len(grid) - 1, 1, 6, 2)))
    score = two_components().score(sde)
    if solver.kind == "deterministic":
        return np.asarray(walk(solver, sdelab.ProbabilityFlow(sde, score), x, grid))
    return np.asarray(walk(solver, sdelab.ReverseSDE(sde, score, jnp.asarray(c)), x, grid, noise))


SAME = [
    pytest.param(SDEDPMSolverPlusPlus1(), DDIM(), 0.0, id="SDE-1 without noise is DDIM", marks=pytest.mark.slow),
    pytest.param(SDEDPMSolverPlusPlus2M(), DPMSolverPlusPlus2M(), 0.0, id="SDE-2M without noise is 2M"),
    pytest.param(SDEDPMSolverPlusPlus1(), solvers.Ancestral(), 1.0, id="SDE-1 is Ancestral", marks=pytest.mark.slow),
    pytest.param(ExponentialEuler(FrozenNoise()), DDIM(), 0.0, id="a frozen noise is DDIM's", marks=pytest.mark.slow),
    pytest.param(AncestralStep(DDIM()), StochasticDDIM(), 0.6, id="an ancestral DDIM is StochasticDDIM"),
    pytest.param(AncestralStep(DDIM()), solvers.Ancestral(), 1.0, id="and Ancestral", marks=pytest.mark.slow),
    pytest.param(Churn(solvers.Heun(), 0.0), solvers.Heun(), 1.0, id="no churn", marks=pytest.mark.slow),
    pytest.param(
        AncestralStep(solvers.Heun()), solvers.Heun(), 0.0, id="an ancestral Heun without noise", marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("solver", "other", "c"), SAME)
def test_what_agrees(solver, other, c):
    """Over uneven steps, the last of them to t = 0."""
    with jax.enable_x64(True):
        sde = sdelab.VP()
        grid = np.append(grids.quadratic(sde, 7), 0.0)
        np.testing.assert_allclose(mixture_walk(solver, c, sde, grid), mixture_walk(other, c, sde, grid), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", [solvers.Heun(), DPMSolver2()], ids=str)
def test_without_churn_it_is_the_wrapped_solver_bit_for_bit(wrapped):
    """Operation by operation, in float32, the last step to t = 0 too. (Two compiled programs may round differently.)"""
    sde = sdelab.VP()
    score, x = lambda x, t: -jnp.tanh(x), jax.random.normal(jax.random.key(1), (16, 2))
    reverse, flow = sdelab.ReverseSDE(sde, score), sdelab.ProbabilityFlow(sde, score)
    for t0, t1 in ((0.6, 0.3), (0.3, 0.0)):
        churned = one_step(Churn(wrapped, 0.0), reverse, x, t0, t1, jnp.ones((1, 16, 2)))
        np.testing.assert_array_equal(churned, one_step(wrapped, flow, x, t0, t1, jnp.zeros((0, 16, 2))))


@pytest.mark.parametrize(
    "process",
    ["SubVP", pytest.param("EDM", marks=pytest.mark.slow), pytest.param("RectifiedFlow", marks=pytest.mark.slow)],
)
def test_how_far_the_noise_is_raised(process):
    """By gamma where S_min <= sigma/alpha <= S_max, not at all elsewhere, and never above t_max."""
    with jax.enable_x64(True):
        sde = PROCESSES[process]
        starts = jnp.asarray(grids.log_snr(sde, 20)[:-1])
        process = sdelab.ReverseSDE(sde, lambda x, t: -x)
        ratio = jax.jit(lambda t: sde.sigma(t) / sde.alpha(t))
        raise_noise = eqx.filter_jit(lambda solver: solver.raised(process, starts))
        inside = np.asarray((ratio(starts) >= 0.1) & (ratio(starts) <= 3.0))
        for s_churn, gamma in ((2.0, 0.1), (100.0, np.sqrt(2.0) - 1.0)):
            raised = raise_noise(Churn(solvers.Heun(), jnp.asarray(s_churn), jnp.asarray(0.1), jnp.asarray(3.0)))
            np.testing.assert_allclose(ratio(raised)[inside], (1 + gamma) * ratio(starts)[inside], rtol=1e-9)
            np.testing.assert_array_equal(raised[~inside], starts[~inside])
        everywhere = raise_noise(Churn(solvers.Heun(), jnp.asarray(100.0), jnp.asarray(0.0), jnp.asarray(jnp.inf)))
        assert everywhere[0] == starts[0]
        assert np.all(np.asarray(everywhere) <= sde.t_max)


MEMBERS = [
    Churn(solvers.Heun(), 3.0),
    AncestralStep(solvers.Heun()),
    SDEDPMSolverPlusPlus1(),
    SDEDPMSolverPlusPlus2M(),
    ExponentialEuler(),
]
QUICK_MEMBERS = [s if isinstance(s, AncestralStep) else pytest.param(s, marks=pytest.mark.slow) for s in MEMBERS]


@pytest.mark.slow
@pytest.mark.parametrize("solver", MEMBERS, ids=lambda s: type(s).__name__)
def test_derivatives(solver):
    """Of a step with respect to the process, the state and the stochasticity: finite differences, and finite at sigma = 0 and c = 0."""
    with jax.enable_x64(True):
        x, noise = jnp.array([[0.9], [-0.3]]), jnp.array([[[0.7], [-1.1]]])

        @jax.jit
        @jax.value_and_grad
        def end(parameters, t1):
            sde = sdelab.VP(beta_max=parameters["beta_max"])
            variance = lambda t: 0.3 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2  # noqa: E731
            process = sdelab.ReverseSDE(sde, lambda x, t: -jnp.tanh(x) / variance(t), parameters["c"])
            return jnp.sum(one_step(solver, process, parameters["x"], 0.5, t1, noise) ** 2)

        parameters = {"beta_max": jnp.asarray(12.0), "c": jnp.asarray(0.6), "x": x}
        _, gradient = end(parameters, 0.3)
        for name, value in parameters.items():
            if name == "c" and isinstance(solver, Churn):
                continue
            h = 1e-5 * jnp.sign(value)
            up, down = (float(end({**parameters, name: value + sign * h}, 0.3)[0]) for sign in (1, -1))
            np.testing.assert_allclose(jnp.sum(gradient[name] * jnp.sign(value)), (up - down) / 2e-5, rtol=1e-5)
        for c, t1 in ((0.0, 0.3), (1.0, 0.0), (0.0, 0.0)):
            _, gradient = end({**parameters, "c": jnp.asarray(c)}, t1)
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient)), (c, t1, gradient)


@pytest.mark.parametrize("solver", QUICK_MEMBERS, ids=lambda s: type(s).__name__)
def test_a_float32_state_stays_one(solver):
    """Where float64 is enabled too; and a last step to t = 0 ends in the denoised state."""
    with jax.enable_x64(True):
        sde = sdelab.SubVP()
        process = sdelab.ReverseSDE(sde, lambda x, t: -jnp.tanh(x))
        x, t0 = jnp.ones((3, 2), jnp.float32), jnp.asarray(0.4, jnp.float32)
        step = jax.jit(lambda t1: one_step(solver, process, x, t0, t1, jnp.zeros((1, 3, 2), jnp.float32)))
        y = step(jnp.zeros((), jnp.float32))
        assert y.dtype == jnp.float32
        if not isinstance(solver, Churn):  # which denoises at another time
            np.testing.assert_allclose(y, process.denoise(x, t0), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [diffrax.ShARK(), diffrax.SRA1(), diffrax.SPaRK()], ids=lambda s: type(s).__name__)
def test_adaptive_steps_are_unbiased(solver):
    """Variance ratio 1 +- 0.02 in one dimension, on a Brownian tree, rejected steps included.

    The start is at the quantiles of its distribution: what is left of the scatter is that of the noise on the way.
    """
    sde, start, end = sdelab.VP(), 0.12, 0.05
    gaussian = sdelab.exact.Gaussian(jnp.zeros(1), jnp.asarray(0.25))
    process = sdelab.ReverseSDE(sde, gaussian.score(sde))
    samples, std = 20_000, jnp.sqrt(sde.alpha(start) ** 2 * 0.25 + sde.sigma(start) ** 2)
    x_T = std * jax.scipy.stats.norm.ppf((np.arange(samples, dtype=np.float32) + 0.5) / samples)[:, None]
    x, info = sdelab.sample_with_info(
        jax.random.key(2), process, x_T, solver=solver, grid=[start, end], rtol=1e-3, atol=1e-3
    )
    assert int(info.rejected.sum()) > 0
    exact = float(sde.alpha(end) ** 2 * 0.25 + sde.sigma(end) ** 2)
    np.testing.assert_allclose(np.var(np.asarray(x)) / exact, 1.0, atol=0.02)


def reverse(**arguments):
    sde = sdelab.VP()
    return sdelab.ReverseSDE(sde, two_components().score(sde), **arguments)


REFUSED = [
    (lambda: Churn(solvers.Ancestral(), 1.0), TypeError, "deterministic"),
    (lambda: Churn(diffrax.Heun(), 1.0), TypeError, "AbstractReverseSolver"),
    (lambda: Churn(solvers.Heun(), -1.0), ValueError, "s_churn = -1.0"),
    (lambda: Churn(solvers.Heun(), 1.0, 2.0, 1.0), ValueError, "s_min = 2.0"),
    (lambda: Churn(solvers.Heun(), 1.0, s_noise=0.0), ValueError, "s_noise = 0.0"),
    (lambda: AncestralStep(solvers.EulerMaruyama()), TypeError, "deterministic"),
    (lambda: SDEDPMSolverPlusPlus2M("midpoint"), TypeError, "linear_term = 'midpoint'"),
    (lambda: ExponentialEuler("score"), TypeError, "frozen = 'score'"),
    (lambda: Churn(solvers.Heun(), 1.0).check(reverse(stochasticity=0.5)), ValueError, "stochasticity = 0.5"),
    (lambda: AncestralStep(solvers.Heun()).check(reverse(stochasticity=1.5)), ValueError, "stochasticity = 1.5"),
    (lambda: Churn(DPMSolverPlusPlus2M(), 1.0).initial_memory(reverse(), jnp.ones((1, 1))), TypeError, "single steps"),
    (lambda: AncestralStep(DPMSolverPlusPlus2M()).initial_memory(reverse(), jnp.ones((1, 1))), TypeError, "earlier"),
]


@pytest.mark.parametrize(("make", "error", "words"), REFUSED)
def test_refused(unhooked, make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("solver", MEMBERS, ids=lambda s: type(s).__name__)
def test_a_probability_flow_is_refused(solver):
    sde = sdelab.VP()
    with pytest.raises(TypeError, match="stochastic"):
        solver.check(sdelab.ProbabilityFlow(sde, two_components().score(sde)))
