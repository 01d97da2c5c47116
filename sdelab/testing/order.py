r"""Observed orders of convergence, in float64, on grids uniform in log-SNR between two levels with $\sigma(t_1) > 0$.

The error of a deterministic method is the root mean square over the points of the grid (but the first three), the
trajectories and their coordinates: at one point the leading terms of a high order can cancel, along a trajectory they
seldom do.
The flow of a Gaussian is known in closed form: $x(t) - m(t)$ scales with the marginal's standard deviation. That of a
mixture is solved by Dormand and Prince's method of order 8 in many steps. On a Gaussian the steps of a stochastic
method are affine, so mean and variance of the result are propagated exactly, one sample for each source of randomness
with that source alone switched on: weak errors without Monte Carlo.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdelab import grids
from sdelab._compile import as_arrays
from sdelab._typing import State
from sdelab.exact import Gaussian, GaussianMixture
from sdelab.integration import with_root_tolerance
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow, ReverseSDE, require_affine
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.base import AbstractReverseSolver, Interval
from sdelab.solvers.diffrax_terms import levy_area, reverse_terms
from sdelab.solvers.noise import GridBrownianPath, StoredNoise

MEAN, VARIANCE = (0.7, -0.4, 0.2), (0.3, 0.02, 1.5)  # several, lest one error pass through zero as the steps grow
NOISE_TO_SIGNAL = (5.0, 0.05)  # sigma / alpha at the ends of the interval
WINDOW = (1e-14, 2e-2)  # errors outside are rounding, or not yet asymptotic
EXACT = 1e-13  # and a method with no error above is exact
WEAK_WINDOW = (1e-13, 6e-2)  # the error of a variance of 1.5: first-order steps are asymptotic from here on
REFERENCE_STEPS = 1024  # so many or fewer, more than half of it, and twice those of a longer grid
TRAJECTORIES = 64  # of a mixture
STARTING = 3  # steps, after which the error counts: between those of a multistep method's start stand rougher states
LONGEST = 1024  # steps of a walk that do not compile anew


@dataclasses.dataclass(frozen=True)
class Convergence:
    """Errors in so many steps, and the slope of log error against log steps by least squares, through those in the window.

    `order` is `inf` where every error is below 1e-13: the method is exact there. It is NaN where fewer than two
    errors lie in the window.
    """

    steps: tuple[int, ...]
    errors: tuple[float, ...]
    window: tuple[float, float] = WINDOW

    @property
    def order(self) -> float:
        steps, errors = np.asarray(self.steps), np.asarray(self.errors)
        if np.all(errors < EXACT):
            return np.inf
        inside = np.flatnonzero((errors > self.window[0]) & (errors < self.window[1]))
        if len(inside) < 2:
            return np.nan
        return float(-np.polyfit(np.log(steps[inside]), np.log(errors[inside]), 1)[0])


FLOW_STEPS = {
    1: (256, 512, 1024),
    2: (64, 128, 256),
    3: (192, 384, 768),
    4: (128, 256, 512),
    5: (8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512),
    8: (8, 11, 16, 23, 32, 45, 64),
}
WEAK_STEPS = {1: (256, 512, 1024), 2: (128, 256, 512)}


def steps_for(claimed: int | None, steps: Mapping[int, tuple[int, ...]] = FLOW_STEPS) -> tuple[int, ...]:
    """Numbers of steps in which the errors of a method of that order fall by it, inside the window."""
    return steps[max(order for order in steps if order <= max(claimed or 2, 1))]


def interval_of(sde: AbstractAffineSDE) -> tuple[float, float]:
    """The times, start and end, between which orders are measured."""
    with jax.enable_x64(True):
        start, end = (float(sde.log_snr_inverse(-2.0 * np.log(level))) for level in NOISE_TO_SIGNAL)
    return start, end


@dataclasses.dataclass(frozen=True)
class FlowProblem:
    """A probability flow, states at `start`, and the exact states on a grid from there to `end`, in float64.

    `sde` is the process of the flow, on which the grids are built; the flow itself may be on a `OneOf` that stands for it.
    """

    sde: AbstractAffineSDE
    flow: ProbabilityFlow
    x_T: State
    exact: Callable[[int], np.ndarray]  # after each of so many steps of the grid
    start: float
    end: float

    def convergence(self, solver: diffrax.AbstractSolver, steps: Sequence[int]) -> Convergence:
        """The root mean square error along the trajectories, for each number of steps, each more than three."""
        if min(steps) <= STARTING:
            raise ValueError(f"steps = {tuple(steps)} is not accepted; each must be more than {STARTING}.")
        with jax.enable_x64(True):
            errors = []
            for n in steps:
                found = trajectory(solver, self.flow, self.x_T, _grid(self.sde, n, self.start, self.end))
                errors.append(float(np.sqrt(np.mean((found - self.exact(n))[STARTING:] ** 2))))
        return Convergence(tuple(steps), tuple(errors))


def flow_problem(
    sde: AbstractAffineSDE,
    data: Gaussian | GaussianMixture | None = None,
    *,
    carrier: AbstractAffineSDE | None = None,
) -> FlowProblem:
    """The flow of `data`, by default a Gaussian, whose trajectories are known in closed form.

    `carrier`, a `OneOf`, stands for `sde` in the flow: a step compiled on it serves the other processes too.
    """
    with jax.enable_x64(True):
        start, end = interval_of(sde)
        found = _gaussian_flow(sde, start, end) if data is None else _flow_of(data, sde, start, end)
        flow, x_T, exact = found
        if carrier is not None:
            flow = ProbabilityFlow(carrier, (_gaussian() if data is None else data).score(carrier))
    return FlowProblem(sde, flow, x_T, exact, start, end)


def flow_convergence(
    solver: diffrax.AbstractSolver,
    sde: AbstractAffineSDE,
    steps: Sequence[int] = (16, 32, 64, 128),
    *,
    data: Gaussian | GaussianMixture | None = None,
) -> Convergence:
    """Root mean square error along trajectories of the probability flow; by default on Gaussian data."""
    return flow_problem(sde, data).convergence(solver, steps)


def two_components() -> GaussianMixture:
    """A mixture in two dimensions, in float64, whose flow bends: the data on which orders are measured beside a Gaussian."""
    with jax.enable_x64(True):
        means = jnp.array([[1.0, 0.5], [-0.8, -0.3]], jnp.float64)
        return GaussianMixture(means, jnp.array([0.09, 0.16], jnp.float64), jnp.array([0.4, 0.6], jnp.float64))


def weak_convergence(
    solver: diffrax.AbstractSolver,
    sde: AbstractAffineSDE,
    steps: Sequence[int] = (64, 128, 256),
    *,
    stochasticity: float = 1.0,
    carrier: AbstractAffineSDE | None = None,
) -> Convergence:
    """Error of mean and variance at the end of the reverse SDE of Gaussian data, whichever is larger.

    `carrier` as in `flow_problem`.
    """
    with jax.enable_x64(True):
        start, end = interval_of(sde)
        alpha, sigma = float(sde.alpha(end)), float(sde.sigma(end))
        stands = sde if carrier is None else carrier
        process = ReverseSDE(
            stands, _gaussian().score(stands), jnp.asarray(stochasticity)
        )  # one program for all of them
        exact = alpha * np.asarray(MEAN), alpha**2 * np.asarray(VARIANCE) + sigma**2
        errors = []
        for n in steps:
            grid = grids.log_snr(sde, n, t_min=end, t_max=start)
            found = propagate(solver, process, grid, sources=max(steps) * draws_of(solver))
            errors.append(max(float(np.max(np.abs(a - b))) for a, b in zip(found, exact, strict=True)))
    return Convergence(tuple(steps), tuple(errors), WEAK_WINDOW)


def propagate(
    solver: diffrax.AbstractSolver, process: ReverseSDE, grid: grids.Grid, *, sources: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances after the grid, exactly, from the marginal at `grid[0]` of the Gaussian data (`MEAN`, `VARIANCE`).

    The score must be that of these data: their coordinates do not mix, so that one sample carries a source of
    randomness for each. `sources`: the size of the batch, beyond the needed one to share a compiled step between grids
    of several lengths.
    """
    n, draws, d = len(grid) - 1, draws_of(solver), len(MEAN)
    noise = np.zeros((n, draws, 2 + max(n * draws, sources or 0), d))
    for i, j in np.ndindex(n, draws):
        noise[i, j, 2 + i * draws + j] = 1.0
    sde = require_affine(process.sde, "propagate")
    alpha, sigma = float(sde.alpha(grid[0])), float(sde.sigma(grid[0]))
    x_T = np.tile(alpha * np.asarray(MEAN), (noise.shape[2], 1))
    x_T[1] += np.sqrt(alpha**2 * np.asarray(VARIANCE) + sigma**2)
    x = np.asarray(walk(solver, process, jnp.asarray(x_T), grid, jnp.asarray(noise)))
    return x[0], np.sum((x[1:] - x[:1]) ** 2, axis=0)


def walk(
    solver: diffrax.AbstractSolver,
    process: AbstractReverseProcess,
    x: State,
    grid: grids.Grid,
    noise: Float[Array, "steps draws batch ..."] | None = None,
) -> State:
    """The state at the end of the grid, by the solver's own steps: one compiled loop serves grids of every length."""
    return _walk(*_walk_arguments(solver, process, x, grid, noise))


def trajectory(
    solver: diffrax.AbstractSolver, process: AbstractReverseProcess, x: State, grid: grids.Grid
) -> Float[np.ndarray, "steps batch ..."]:
    """The states after each step of `walk`, without noise."""
    return np.asarray(_trajectory(*_walk_arguments(solver, process, x, grid, None)))[: len(grid) - 1]


def stepped(
    solver: diffrax.AbstractSolver,
    process: AbstractReverseProcess,
    x: State,
    grid: grids.Grid,
    noise: Float[Array, "steps draws batch ..."] | None = None,
) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the state after the first step of a walk, whether or not there can be a second one."""

    def first_step() -> State:
        *given, _ = _walk_arguments(solver, process, x, grid, noise)
        return _step(*given, jnp.zeros((), jnp.int32), (x, _initial(*given)))[0]

    return jax.eval_shape(first_step)


def _walk_arguments(
    solver: diffrax.AbstractSolver, process: AbstractReverseProcess, x: State, grid: grids.Grid, noise: Array | None
) -> tuple[Any, ...]:
    """Padded to one length for all grids: times and inner times with the last ones, noise with zeros."""
    n, process = len(grid) - 1, as_arrays(process)
    more = max(LONGEST, 2 ** math.ceil(math.log2(n))) - n
    times = jnp.asarray(np.append(grid, np.full(more, grid[-1])), x.dtype)
    noise = jnp.zeros((n, 0, *x.shape), x.dtype) if noise is None else noise
    noise = jnp.pad(noise, ((0, more), *[(0, 0)] * (noise.ndim - 1)))
    if not isinstance(solver, AbstractReverseSolver):
        return with_root_tolerance(solver, x.dtype), process, x, (times, None, noise), jnp.asarray(n, jnp.int32)
    inner = _inner_times(solver, process, jnp.asarray(grid, x.dtype))  # of this grid: `Churn` counts its steps
    inner = jnp.pad(inner, ((0, more), (0, 0)), mode="edge")
    return solver, process, x, (times, inner, noise), jnp.asarray(n, jnp.int32)


@eqx.filter_jit
def _inner_times(solver: AbstractReverseSolver, process: AbstractReverseProcess, times: Array) -> Array:
    return solver.inner_times(process, times[:-1], times[1:])


@eqx.filter_jit
def _walk(solver: Any, process: AbstractReverseProcess, x: State, along: Any, count: Array) -> State:
    def body(i: Array, carry: Any) -> Any:
        return _step(solver, process, x, along, i, carry, count)

    return jax.lax.fori_loop(jnp.zeros_like(count), count, body, (x, _initial(solver, process, x, along)))[0]


@eqx.filter_jit
def _trajectory(solver: Any, process: AbstractReverseProcess, x: State, along: Any, count: Array) -> State:
    """Zeros after `count` steps."""

    def body(i: Array, carry: Any) -> Any:
        state, states = carry
        state = _step(solver, process, x, along, i, state, count)
        return state, states.at[i].set(state[0])

    initial = (x, _initial(solver, process, x, along))
    states = jnp.zeros((along[0].size - 1, *x.shape), x.dtype)
    return jax.lax.fori_loop(jnp.zeros_like(count), count, body, (initial, states))[1]


def _initial(solver: Any, process: AbstractReverseProcess, x: State, along: Any) -> Any:
    """What the solver remembers before its first step."""
    if isinstance(solver, AbstractReverseSolver):
        return solver.initial_memory(process, x)
    terms, clock = _diffrax_terms(solver, process, x, along, jnp.zeros((), jnp.int32))
    return jax.tree.map(jnp.asarray, solver.init(terms, clock[0], clock[1], x, process))


def _step(
    solver: Any, process: AbstractReverseProcess, like: State, along: Any, i: Array, carry: Any, count: Array | int = 1
) -> Any:
    """The state and the memory after step i of `count`."""
    (x, memory), (times, inner, noise) = carry, along
    if isinstance(solver, AbstractReverseSolver):
        interval = Interval(times[i], times[i + 1], i, i == count - 1, noise[i], inner[i], jnp.asarray(count))
        step = solver.advance(process, x, interval, memory)
        return step.x, step.memory
    terms, clock = _diffrax_terms(solver, process, like, along, i)
    x, _, _, memory, _ = solver.step(terms, clock[0], clock[1], x, process, memory, made_jump=False)
    return x, memory


def _diffrax_terms(solver: Any, process: AbstractReverseProcess, x: State, along: Any, i: Array) -> Any:
    times, _, noise = along
    like, path = jax.ShapeDtypeStruct(x.shape, x.dtype), None
    clock = -jax.lax.dynamic_slice(times, (i,), (2,))
    if process.stochastic:
        path = GridBrownianPath(noise=StoredNoise(noise[i][None]), times=clock, like=like, levy_area=levy_area(solver))
    return reverse_terms(solver, process, path), clock


def draws_of(solver: diffrax.AbstractSolver) -> int:
    """How many normal arrays like the state a step consumes: with its space-time Lévy area, two."""
    if isinstance(solver, AbstractReverseSolver):
        return solver.draws()
    return 2 if levy_area(solver) is diffrax.SpaceTimeLevyArea else 1


def _gaussian() -> Gaussian:
    return Gaussian(jnp.asarray(MEAN, jnp.float64), jnp.asarray(VARIANCE, jnp.float64))


def _gaussian_flow(
    sde: AbstractAffineSDE, start: float, end: float
) -> tuple[ProbabilityFlow, State, Callable[[int], np.ndarray]]:
    z = np.array([[1.3], [-0.4]])

    def states(times: np.ndarray) -> np.ndarray:
        alpha, sigma = (np.asarray(of(jnp.asarray(times)))[:, None, None] for of in (sde.alpha, sde.sigma))
        return alpha * np.asarray(MEAN) + z * np.sqrt(alpha**2 * np.asarray(VARIANCE) + sigma**2)

    x_T = jnp.asarray(states(np.array([start]))[0])
    return ProbabilityFlow(sde, _gaussian().score(sde)), x_T, lambda n: states(_grid(sde, n, start, end)[1:])


def _flow_of(
    data: Any, sde: AbstractAffineSDE, start: float, end: float
) -> tuple[ProbabilityFlow, State, Callable[[int], np.ndarray]]:
    flow = ProbabilityFlow(sde, data.score(sde))
    x_T = data.diffused(sde, start).sample(jax.random.key(0), TRAJECTORIES)

    @functools.cache
    def exact(n: int) -> np.ndarray:
        more = max(2, REFERENCE_STEPS // n)
        return trajectory(diffrax.Dopri8(), flow, x_T, _grid(sde, more * n, start, end))[more - 1 :: more]

    return flow, x_T, exact


def _grid(sde: AbstractAffineSDE, n: int, start: float, end: float) -> grids.Grid:
    return grids.log_snr(sde, n, t_min=end, t_max=start)
