"""Multistep methods: orders on grids uniform in log-SNR, starts and their cost, last steps to sigma = 0."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import sdelab
from sdelab import grids
from sdelab.exact import Gaussian, GaussianMixture
from sdelab.solvers.adams_bashforth import DEIS, ExponentialAdamsBashforth
from sdelab.solvers.base import Interval, inner_times
from sdelab.solvers.dpm_solver_multistep import DPMSolver3M, DPMSolverPlusPlus2M, DPMSolverPlusPlus3M
from sdelab.solvers.exponential import moments
from sdelab.solvers.history import LowerOrderFinal, LowOrderStart
from sdelab.solvers.newton import VaryingCoefficients, newton_integrals, weights
from sdelab.solvers.unipc import UniPC
from sdelab.testing.order import NOISE_TO_SIGNAL, Convergence, two_components, walk

FAMILY = (sdelab.VP(), sdelab.VE(), sdelab.SubVP(), sdelab.EDM())


class OneOf(sdelab.AbstractAffineSDE):
    """A member of `FAMILY`, chosen by a traced number: the four share a compiled step."""

    which: jax.Array
    t_min: float = eqx.field(default=1e-3, static=True)
    t_max: float = eqx.field(default=80.0, static=True)

    def alpha(self, t):
        return jnp.stack([sde.alpha(t) for sde in FAMILY])[self.which]

    def sigma(self, t):
        return jnp.stack([sde.sigma(t) for sde in FAMILY])[self.which]

    def drift(self, x, t):
        raise NotImplementedError

    def diffusion(self, t):
        raise NotImplementedError

    def prior_std(self):
        return 1.0


@functools.cache
def truth(data: str):
    """Starts and ends of the flow in y = x / alpha, which for given sigma / alpha is the same under every process."""
    with jax.enable_x64(True):
        start, end = NOISE_TO_SIGNAL
        sde, mixture = sdelab.EDM(), two_components()
        y = mixture.diffused(sde, start).sample(jax.random.key(0), 8)
        if data == "mixture":
            grid = grids.log_snr(sde, 1024, t_max=start, t_min=end)
            return mixture, y, walk(diffrax.Tsit5(), sdelab.ProbabilityFlow(sde, mixture.score(sde)), y, grid)
        means, variances = jnp.full_like(mixture.means, 0.7), jnp.full((2,), 0.3, jnp.float64)
        gaussian = GaussianMixture(means, variances, mixture.weights)  # two equal components: the same program
        return gaussian, y, 0.7 + (y - 0.7) * np.sqrt((0.3 + end**2) / (0.3 + start**2))


LANES = [(which, data) for which in range(len(FAMILY)) for data in ("gaussian", "mixture")]
MOST = 513  # times, and every grid is padded to as many


@functools.cache
def lanes():
    """Flows, starts and ends of all processes with both data, stacked: one compiled step serves all."""
    with jax.enable_x64(True):
        flows, starts, ends = [], [], []
        for which, data in LANES:
            distribution, y_T, y_end = truth(data)
            sde = OneOf(jnp.asarray(which))
            flows.append(sdelab.ProbabilityFlow(sde, distribution.score(sde)))
            levels = [-2.0 * np.log(level) for level in NOISE_TO_SIGNAL]
            start, end = (FAMILY[which].alpha(FAMILY[which].log_snr_inverse(level)) for level in levels)
            starts.append(start * y_T)
            ends.append(end * y_end)
        return stacked(flows), jnp.stack(starts), jnp.stack(ends)


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *trees)


@eqx.filter_jit
def _times(flows, levels):
    return eqx.filter_vmap(lambda flow: flow.sde.log_snr_inverse(levels))(flows)


@eqx.filter_jit
def _inner(flows, times, fractions):
    return eqx.filter_vmap(lambda flow, t: inner_times(flow, t, fractions))(flows, times)


@eqx.filter_jit
def _advance(solver, flows, x, t0, t1, inner, index, steps, memory):
    def advance(flow, x, t0, t1, inner, memory):
        noise = jnp.zeros((0, *x.shape), x.dtype)
        step = solver.advance(flow, x, Interval(t0, t1, index, index == steps - 1, noise, inner, steps), memory)
        return step.x, step.memory

    return eqx.filter_vmap(advance)(flows, x, t0, t1, inner, memory)


def orders(solver, window):
    """The observed order and the errors, for each of `LANES`."""
    flows, x_T, exact = lanes()
    with jax.enable_x64(True):
        errors = []
        for n in window:
            levels = np.linspace(*(-2.0 * np.log(NOISE_TO_SIGNAL)), n + 1)
            times = _times(flows, jnp.asarray(np.pad(levels, (0, MOST - n - 1), mode="edge")))
            inner = _inner(flows, times, solver.inner_fractions())
            x, steps = x_T, jnp.asarray(n, jnp.int32)
            memory = eqx.filter_vmap(solver.initial_memory)(flows, x)
            for i in range(n):
                index = jnp.asarray(i, jnp.int32)
                x, memory = _advance(solver, flows, x, times[:, i], times[:, i + 1], inner[:, i], index, steps, memory)
            errors.append(np.max(np.abs(x - exact), axis=(1, 2)))
    return [(Convergence(tuple(window), tuple(e)).order, e) for e in np.transpose(errors)]


CLAIMS = {
    "DPMSolverPlusPlus2M": (DPMSolverPlusPlus2M(), 2),
    "DPMSolverPlusPlus3M": (DPMSolverPlusPlus3M(), 3),
    "DPMSolver3M": (DPMSolver3M(), 3),
    "AB4": (ExponentialAdamsBashforth(4), 4),
    "DEIS3": (DEIS(3), 3),
    "UniPC2": (UniPC(2), 3),
    "UniPC3-vary": (UniPC(3, VaryingCoefficients()), 4),
}
WINDOWS = {2: (48, 96, 192), 3: (16, 32, 256, 384), 4: (128, 256, 512)}  # wide where an error changes its sign


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_order(name):
    """Of Gaussian and mixture data under VP, VE, SubVP and EDM."""
    solver, claimed = CLAIMS[name]
    assert solver.claimed_order() == claimed
    for lane, (order, errors) in zip(LANES, orders(solver, WINDOWS[claimed]), strict=True):
        assert order >= claimed - 0.2, (lane, errors)


@pytest.mark.slow
def test_the_published_start_leaves_order_two():
    """Adams–Bashforth methods whose first step is of order 1 are of order 2, whatever comes after."""
    solver = ExponentialAdamsBashforth(4, start=LowOrderStart())
    assert solver.claimed_order() == 2
    for lane, (order, errors) in zip(LANES, orders(solver, (64, 128, 256)), strict=True):
        assert 1.8 <= order <= 2.3, (lane, errors)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_weights_integrate_polynomials(sign):
    """Against the exponential kernel, on uneven nodes: scipy's quadrature of the polynomial itself."""
    with jax.enable_x64(True):
        h, nodes = 0.8, [0.0, -0.7, -2.1, 1.0]
        kernel = [m / h**j for j, m in enumerate(moments(4, jnp.asarray(h), sign))]
        integrals = newton_integrals([jnp.asarray(v) for v in nodes], kernel)

        def integrand(polynomial, u):
            return np.exp(sign * (h - u)) * polynomial(u / h)

        for order in (1, 2, 3, 4):
            found = np.asarray(weights([jnp.asarray(v) for v in nodes], integrals, order))
            np.testing.assert_array_equal(found[order:], 0.0)
            polynomial = np.polynomial.Polynomial([0.3, -1.1, 0.7, 0.9][:order])
            exact, _ = scipy.integrate.quad(functools.partial(integrand, polynomial), 0.0, h, epsabs=1e-13)
            np.testing.assert_allclose(found @ polynomial(np.asarray(nodes)), exact, rtol=1e-11)


class Counted:
    """A score that counts its evaluations while the program runs."""

    def __init__(self, score):
        self.score, self.count = score, 0

    def __call__(self, x, t):
        jax.debug.callback(self._add)
        return self.score(x, t)

    def _add(self):
        self.count += 1


@pytest.mark.parametrize(
    ("solver", "extra"),
    [
        pytest.param(ExponentialAdamsBashforth(4), (2, 1), id="AB4", marks=pytest.mark.slow),
        pytest.param(DPMSolverPlusPlus3M(), (1,), id="3M"),
    ],
)
def test_evaluations_and_the_step_to_data(solver, extra):
    """What the start inserts is counted, also where the grid is shorter than the start, or ends where sigma = 0.

    There the last step gives the denoised state of the one before it, whatever is remembered.
    """
    sde = sdelab.VP()
    score = Counted(Gaussian(jnp.full((1,), 0.7), jnp.asarray(0.3)).score(sde))
    flow, x_T = sdelab.ProbabilityFlow(sde, score), jnp.linspace(-1.0, 1.0, 4)[:, None]
    for n in (1, 2, 3, 5):
        for to_data in (False, True):
            score.count = 0
            grid = grids.uniform(sde, n, t_min=0.0 if to_data else 0.1)
            x = jax.block_until_ready(walk(solver, flow, x_T, grid))
            jax.effects_barrier()
            assert score.count == solver.evaluations(n, to_data) == n + sum(extra[: n - to_data])
            if to_data and n > 1 and solver.correction().gain == 0:
                before = walk(solver, flow, x_T, grid[:-1])
                np.testing.assert_allclose(x, flow.denoise(before, jnp.asarray(grid[-2])), rtol=1e-5)


@pytest.mark.parametrize(
    "solver",
    [
        pytest.param(UniPC(2, ending=LowerOrderFinal()), id="UniPC2", marks=pytest.mark.slow),
        pytest.param(DEIS(3, start=LowOrderStart()), id="DEIS3", marks=pytest.mark.slow),
        pytest.param(DPMSolverPlusPlus2M(), id="2M"),
    ],
)
def test_gradients(solver):
    """By a number of the process and by the state, also of the step to sigma = 0: central differences say the same."""
    with jax.enable_x64(True):
        x_T, data = jnp.linspace(-1.0, 1.0, 4)[:, None], Gaussian(jnp.full((1,), 0.7), jnp.asarray(0.3))
        times = jnp.array([0.8, 0.5, 0.3, 0.0])
        inner = inner_times(
            sdelab.ProbabilityFlow(sdelab.VP(), data.score(sdelab.VP())), times, solver.inner_fractions()
        )

        @eqx.filter_jit
        def step(beta_max, x, memory, i):
            sde = sdelab.VP(beta_max=beta_max)
            noise = jnp.zeros((0, *x.shape), x.dtype)
            interval = Interval(times[i], times[i + 1], i, i == 2, noise, inner[i], jnp.asarray(3, jnp.int32))
            result = solver.advance(sdelab.ProbabilityFlow(sde, data.score(sde)), x, interval, memory)
            return jnp.sum(jnp.sin(result.x)), (result.x, result.memory)

        gradient = eqx.filter_jit(jax.grad(lambda beta, x, *rest: step(beta, x, *rest)[0], argnums=(0, 1)))
        x, beta_max = x_T, jnp.asarray(20.0)
        memory = solver.initial_memory(sdelab.ProbabilityFlow(sdelab.VP(), data.score(sdelab.VP())), x)
        for i in (jnp.asarray(i, jnp.int32) for i in range(3)):
            by_beta, by_x = gradient(beta_max, x, memory, i)
            d = 1e-4
            values = [step(beta_max + s, x, memory, i)[0] for s in (d, -d)]
            np.testing.assert_allclose(by_beta, (values[0] - values[1]) / (2 * d), rtol=1e-5, atol=1e-8)
            values = [step(beta_max, x + s * x_T, memory, i)[0] for s in (d, -d)]
            np.testing.assert_allclose(jnp.sum(by_x * x_T), (values[0] - values[1]) / (2 * d), rtol=1e-6, atol=1e-8)
            x, memory = step(beta_max, x, memory, i)[1]


@pytest.mark.slow
def test_sample_is_the_walk_in_float32():
    """The loop of `sample`, compiled, gives what single steps give, in float32, and the float64 result to its rounding."""
    sde, solver = sdelab.SubVP(), UniPC(3)
    flow = sdelab.ProbabilityFlow(sde, Gaussian(jnp.full((1,), 0.7), jnp.asarray(0.3)).score(sde))
    x_T, grid = jnp.linspace(-1.0, 1.0, 4)[:, None], np.append(grids.log_snr(sde, 12), 0.0)
    x, info = sdelab.sample_with_info(None, flow, x_T, solver=solver, grid=grid)
    assert x.dtype == jnp.float32
    assert info.evaluations is not None
    assert int(info.evaluations[0]) == solver.evaluations(13, True) == 15
    np.testing.assert_allclose(x, walk(solver, flow, x_T, grid), rtol=2e-6, atol=2e-6)
    with jax.enable_x64(True):
        np.testing.assert_allclose(x, walk(solver, flow, jnp.asarray(x_T, jnp.float64), grid), rtol=2e-5, atol=2e-5)


def test_refusals(unhooked):
    score = Gaussian(jnp.zeros(1), jnp.asarray(1.0)).score(sdelab.VP())
    for make in (lambda: ExponentialAdamsBashforth(5), lambda: DEIS(0), lambda: UniPC(4)):
        with pytest.raises(ValueError, match="order = "):
            make()
    with pytest.raises(TypeError, match="start = 'low'"):
        DPMSolverPlusPlus2M(start="low")
    with pytest.raises(TypeError, match="coefficients = 'bh2'"):
        UniPC(2, "bh2")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="DPMSolverPlusPlus2M is a deterministic solver"):
        sdelab.sample(jax.random.key(0), sdelab.ReverseSDE(sdelab.VP(), score), (2, 1), solver=DPMSolverPlusPlus2M())
