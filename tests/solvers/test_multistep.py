"""Multistep methods: orders on grids uniform in log-SNR, starts and their cost, last steps to sigma = 0."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import sdelab
from sdelab import grids
from sdelab.exact import Gaussian
from sdelab.solvers.adams_bashforth import DEIS, ExponentialAdamsBashforth
from sdelab.solvers.base import Interval, inner_times
from sdelab.solvers.dpm_solver_multistep import DPMSolverPlusPlus2M, DPMSolverPlusPlus3M
from sdelab.solvers.exponential import moments
from sdelab.solvers.history import LowerOrderFinal, LowOrderStart
from sdelab.solvers.newton import VaryingCoefficients, newton_integrals, weights
from sdelab.solvers.unipc import UniPC
from sdelab.testing.order import flow_problem, steps_for, two_components, walk

VARIANTS = {
    "UniPC3-vary": (UniPC(3, VaryingCoefficients()), 4),
    "AB4-published-start": (ExponentialAdamsBashforth(4, start=LowOrderStart()), 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_order_of_a_variant(name):
    """Of what the catalogue does not have: test_orders.py has the rest.

    A first step of order 1 leaves Adams–Bashforth methods at order 2, whatever comes after, and that is what they claim.
    """
    solver, claimed = VARIANTS[name]
    assert solver.claimed_order() == claimed
    found = flow_problem(sdelab.VP(), two_components()).convergence(solver, steps_for(claimed))
    assert claimed - 0.2 <= found.order <= claimed + 0.3, found


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
