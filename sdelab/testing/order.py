r"""Observed orders of convergence, in float64, on grids uniform in log-SNR between two levels with $\sigma(t_1) > 0$.

The flow of a Gaussian is known in closed form: $x(t) - m(t)$ scales with the marginal's standard deviation. That of a
mixture is solved by Dormand and Prince's method of order 8 in many steps. On a Gaussian the steps of a stochastic
method are affine, so mean and variance of the result are propagated exactly, one sample for each source of randomness
with that source alone switched on: weak errors without Monte Carlo.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdelab import grids
from sdelab._typing import State
from sdelab.exact import Gaussian, GaussianMixture
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow, ReverseSDE
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.base import AbstractReverseSolver, Interval, inner_times
from sdelab.solvers.diffrax_terms import levy_area, reverse_terms
from sdelab.solvers.noise import GridBrownianPath, StoredNoise

MEAN, VARIANCE = 0.7, 0.3
NOISE_TO_SIGNAL = (5.0, 0.05)  # sigma / alpha at the ends of the interval
WINDOW = (1e-11, 1e-2)  # errors outside are rounding, or not yet asymptotic
REFERENCE_STEPS = 1024


@dataclasses.dataclass(frozen=True)
class Convergence:
    """Errors in so many steps, and the slope of log error against log steps over those inside the window.

    `order` is `inf` where every error is below the window: the method is exact there. It is NaN where fewer than two
    errors lie in the window.
    """

    steps: tuple[int, ...]
    errors: tuple[float, ...]

    @property
    def order(self) -> float:
        steps, errors = np.asarray(self.steps), np.asarray(self.errors)
        if np.all(errors < WINDOW[0]):
            return np.inf
        inside = (errors > WINDOW[0]) & (errors < WINDOW[1])
        if np.sum(inside) < 2:
            return np.nan
        # over the window and not between neighbours: an error that changes its sign passes through zero on the way
        return float(-np.polyfit(np.log(steps[inside]), np.log(errors[inside]), 1)[0])


def interval_of(sde: AbstractAffineSDE) -> tuple[float, float]:
    """The times, start and end, between which orders are measured."""
    with jax.enable_x64(True):
        start, end = (float(sde.log_snr_inverse(-2.0 * np.log(level))) for level in NOISE_TO_SIGNAL)
    return start, end


def flow_convergence(
    solver: diffrax.AbstractSolver,
    sde: AbstractAffineSDE,
    steps: Sequence[int] = (16, 32, 64, 128),
    *,
    data: Gaussian | GaussianMixture | None = None,
) -> Convergence:
    """Largest error at the end of the probability flow, over a few starting points; by default on Gaussian data."""
    with jax.enable_x64(True):
        start, end = interval_of(sde)
        flow, x_T, exact = _gaussian_flow(sde, start, end) if data is None else _flow_of(data, sde, start, end)
        errors = []
        for n in steps:
            grid = grids.log_snr(sde, n, t_min=end, t_max=start)
            errors.append(float(jnp.max(jnp.abs(walk(solver, flow, x_T, grid) - exact))))
    return Convergence(tuple(steps), tuple(errors))


def weak_convergence(
    solver: diffrax.AbstractSolver,
    sde: AbstractAffineSDE,
    steps: Sequence[int] = (64, 128, 256),
    *,
    stochasticity: float = 1.0,
) -> Convergence:
    """Error of mean and variance at the end of the reverse SDE of Gaussian data, whichever is larger."""
    with jax.enable_x64(True):
        start, end = interval_of(sde)
        alpha, sigma = float(sde.alpha(end)), float(sde.sigma(end))
        process = ReverseSDE(sde, _gaussian().score(sde), stochasticity)
        errors = []
        for n in steps:
            grid = grids.log_snr(sde, n, t_min=end, t_max=start)
            mean, variance = propagate(solver, process, grid, sources=max(steps) * draws_of(solver))
            errors.append(max(abs(mean - alpha * MEAN), abs(variance - (alpha**2 * VARIANCE + sigma**2))))
    return Convergence(tuple(steps), tuple(errors))


def propagate(
    solver: diffrax.AbstractSolver, process: ReverseSDE, grid: grids.Grid, *, sources: int | None = None
) -> tuple[float, float]:
    """Mean and variance after the grid, exactly, of a start from the marginal of the Gaussian data at `grid[0]`.

    The score must be that of Gaussian data in one dimension. `sources`: the size of the batch, beyond the needed one to
    share a compiled step between grids of several lengths.
    """
    n, draws = len(grid) - 1, draws_of(solver)
    noise = np.zeros((n, draws, 2 + max(n * draws, sources or 0), 1))
    for i, j in np.ndindex(n, draws):
        noise[i, j, 2 + i * draws + j] = 1.0
    sde = process.sde
    assert isinstance(sde, AbstractAffineSDE)
    alpha, sigma = float(sde.alpha(grid[0])), float(sde.sigma(grid[0]))
    x_T = np.full(noise.shape[2:], alpha * MEAN)
    x_T[1] += np.sqrt(alpha**2 * VARIANCE + sigma**2)
    x = np.asarray(walk(solver, process, jnp.asarray(x_T), grid, jnp.asarray(noise)))[:, 0]
    return float(x[0]), float(np.sum((x[1:] - x[0]) ** 2))


def walk(
    solver: diffrax.AbstractSolver,
    process: AbstractReverseProcess,
    x: State,
    grid: grids.Grid,
    noise: Float[Array, "steps draws batch ..."] | None = None,
) -> State:
    """The state at the end of the grid, step by step from Python: one compiled step serves grids of every length."""
    n, times = len(grid) - 1, jnp.asarray(grid, x.dtype)
    silence = jnp.zeros((0, *x.shape), x.dtype)
    if isinstance(solver, AbstractReverseSolver):
        inner = inner_times(process, times, solver.inner_fractions())
        memory = solver.initial_memory(process, x)
        for i in range(n):
            drawn = silence if noise is None else noise[i]
            last, count = jnp.asarray(i == n - 1), jnp.asarray(n, jnp.int32)
            interval = Interval(times[i], times[i + 1], jnp.asarray(i, jnp.int32), last, drawn, inner[i], count)
            x, memory = _advance(solver, process, x, interval, memory)
        return x
    state = None
    for i in range(n):
        drawn = silence if noise is None else noise[i]
        x, state = _diffrax_step(solver, process, x, -times[i : i + 2], drawn, state)
    return x


@eqx.filter_jit
def _advance(solver: AbstractReverseSolver, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any):
    step = solver.advance(process, x, interval, memory)
    return step.x, step.memory


@eqx.filter_jit
def _diffrax_step(solver, process: AbstractReverseProcess, x: State, clock, noise, state):
    like, path = jax.ShapeDtypeStruct(x.shape, x.dtype), None
    if process.stochastic:
        path = GridBrownianPath(StoredNoise(noise[None]), clock, like, levy_area(solver))
    terms = reverse_terms(solver, process, path)
    if state is None:
        state = solver.init(terms, clock[0], clock[1], x, process)
    x, _, _, state, _ = solver.step(terms, clock[0], clock[1], x, process, state, made_jump=False)
    return x, state


def draws_of(solver: diffrax.AbstractSolver) -> int:
    """How many normal arrays like the state a step consumes: with its space-time Lévy area, two."""
    if isinstance(solver, AbstractReverseSolver):
        return solver.draws()
    return 2 if levy_area(solver) is diffrax.SpaceTimeLevyArea else 1


def _gaussian() -> Gaussian:
    return Gaussian(jnp.full((1,), MEAN, jnp.float64), jnp.asarray(VARIANCE, jnp.float64))


def _gaussian_flow(sde: AbstractAffineSDE, start: float, end: float) -> tuple[ProbabilityFlow, State, State]:
    def moments(t: float) -> tuple[float, float]:
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        return alpha * MEAN, float(np.sqrt(alpha**2 * VARIANCE + sigma**2))

    (mean0, std0), (mean1, std1) = moments(start), moments(end)
    z = jnp.array([[1.3], [-0.4]])
    return ProbabilityFlow(sde, _gaussian().score(sde)), mean0 + std0 * z, mean1 + std1 * z


def _flow_of(data: Any, sde: AbstractAffineSDE, start: float, end: float) -> tuple[ProbabilityFlow, State, State]:
    flow = ProbabilityFlow(sde, data.score(sde))
    x_T = data.diffused(sde, start).sample(jax.random.key(0), 8)
    grid = grids.log_snr(sde, REFERENCE_STEPS, t_min=end, t_max=start)
    return flow, x_T, walk(diffrax.Dopri8(), flow, x_T, grid)
