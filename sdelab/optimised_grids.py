r"""Grids fitted to a score and a solver: the n + 1 times at which so many steps end nearest to the exact flow.

They are float64 arrays like those of `sdelab.grids`, made once on a few trajectories and then used for all.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdelab import grids
from sdelab._checks import check_count, check_instance
from sdelab._typing import State
from sdelab.integration import solve_on_grid
from sdelab.reverse import ProbabilityFlow, require_affine
from sdelab.sampling import sample
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.base import AbstractReverseSolver
from sdelab.solvers.diffrax_terms import check_diffrax_solver, check_diffrax_steps
from sdelab.solvers.noise import NoNoise

DAMPING = (1e-8, 1e8)  # of Levenberg and Marquardt's method; beyond the second nothing is left to gain
ENOUGH = 1e-4  # relative decrease of the mean square error in one iteration


def least_error(
    process: ProbabilityFlow,
    x_T: State,
    n: int,
    *,
    solver: diffrax.AbstractSolver,
    t_min: float | None = None,
    iterations: int = 30,
    reference_steps: int = 256,
) -> grids.Grid:
    r"""The grid of `n` steps from `t_max` to `t_min` at whose end `solver` is nearest to the exact flow.

    Minimises the mean square distance between the end of the steps from `x_T` and that of the exact trajectories, by
    derivatives through the solver, over the log-SNR levels $l_i$ between fixed ends, $l_{i+1} - l_i \propto e^{\theta_i}$: Levenberg
    and Marquardt's method, from the best of the fixed rules (`fixed_rules`). On `x_T` the grid is never worse than that.
    The objective is that of Tong et al. (2025), https://arxiv.org/abs/2405.15506 ("learning to discretize").

    `x_T`: states at `t_max`, `(batch, *event)`, some dozens of draws from the prior; as many numbers as steps at least.
    `t_min` > 0, by default the process's. The exact trajectories are those of diffrax's Dopri8 in `reference_steps` steps of
    equal log-SNR. Each of the at most `iterations` iterations costs about n + 1 solves of the batch with `solver`.
    Errors: a stochastic process or solver, a process without a kernel, fewer numbers in `x_T` than steps.
    """
    _check(process, solver, n, iterations, reference_steps)
    x_T = jnp.asarray(x_T) * 1.0
    if x_T.ndim < 1 or x_T.size < n:
        raise ValueError(f"x_T has shape {x_T.shape}; accepted: (batch, *event), at least n = {n} numbers in all.")
    sde = require_affine(process.sde, "optimised_grids.least_error")
    rules = fixed_rules(sde, n, t_min=t_min)
    if n == 1:  # nothing is left to choose between the ends
        return rules["uniform"]
    fine = grids.log_snr(sde, reference_steps, t_min=t_min)
    problem = _Problem(process, solver, x_T, sample(None, process, x_T, solver=diffrax.Dopri8(), grid=fine))
    levels = min((grids.levels_of(sde, grid) for grid in rules.values()), key=problem.error)
    grid = grids.from_log_snr(sde, _minimise(problem, levels, iterations))
    grid[[0, -1]] = fine[[0, -1]]
    return grid


def fixed_rules(sde: AbstractAffineSDE, n: int, *, t_min: float | None = None) -> dict[str, grids.Grid]:
    """The grids of `n` steps from `t_max` to `t_min` > 0 by the rules of `sdelab.grids` that have no parameter of the data."""
    rules: dict[str, Callable[..., grids.Grid]] = {
        "uniform": grids.uniform,
        "quadratic": grids.quadratic,
        "log_snr": grids.log_snr,
        "cosine": grids.cosine,
        "edm": lambda sde, n, t_min: grids.edm(sde, n + 1, t_min=t_min)[:-1],
    }
    return {name: rule(sde, n, t_min=t_min) for name, rule in rules.items()}


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Trajectories of a flow with their exact ends, and a solver whose grid is sought."""

    process: ProbabilityFlow
    solver: diffrax.AbstractSolver
    x_T: State
    exact: State

    def error(self, levels: np.ndarray) -> float:
        """Mean square error at the end of a grid of these log-SNR levels; `inf` where it is not finite."""
        residual = np.asarray(_residual(*self._arguments(levels)), np.float64)
        return float(np.mean(residual**2)) if np.all(np.isfinite(residual)) else np.inf

    def linearised(self, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r"""The errors of all numbers, and their derivatives by the $\theta_i$."""
        residual, jacobian = _residual_and_jacobian(*self._arguments(levels))
        return np.asarray(residual, np.float64), np.asarray(jacobian, np.float64)

    def _arguments(self, levels: np.ndarray) -> tuple[Any, ...]:
        theta, ends = np.log(np.diff(levels)), levels[[0, -1]]
        dtype = self.x_T.dtype
        return jnp.asarray(theta, dtype), jnp.asarray(ends, dtype), self.process, self.solver, self.x_T, self.exact


def _minimise(problem: _Problem, levels: np.ndarray, iterations: int) -> np.ndarray:
    """Levenberg and Marquardt's method with multiplicative damping; a step is taken where the error decreases."""
    best, damping = problem.error(levels), 1e-2
    for _ in range(iterations):
        residual, jacobian = problem.linearised(levels)
        gradient, curvature = jacobian.T @ residual, jacobian.T @ jacobian
        scale = np.trace(curvature) / len(curvature)
        if not np.isfinite(scale) or scale == 0.0:
            break
        before = best
        while damping < DAMPING[1]:
            step = np.linalg.solve(curvature + damping * scale * np.eye(len(curvature)), gradient)
            moved = _levels_after(levels, -np.clip(step, -1.0, 1.0))
            error = problem.error(moved)
            damping *= 0.2 if error < best else 4.0
            if error < best:
                levels, best = moved, error
                break
        damping = max(damping, DAMPING[0])
        if best > (1.0 - ENOUGH) * before:
            break
    return levels


def _levels_after(levels: np.ndarray, step: np.ndarray) -> np.ndarray:
    widths = np.diff(levels) * np.exp(step)
    inner = levels[0] + (levels[-1] - levels[0]) * np.cumsum(widths) / np.sum(widths)
    return np.concatenate([levels[:1], inner[:-1], levels[-1:]])


@eqx.filter_jit
def _residual(theta, ends, process, solver, x_T, exact) -> Float[Array, " numbers"]:
    return _end_error(theta, ends, process, solver, x_T, exact)


@eqx.filter_jit
def _residual_and_jacobian(theta, ends, process, solver, x_T, exact):
    residual = lambda theta: (_end_error(theta, ends, process, solver, x_T, exact),) * 2  # noqa: E731
    jacobian, value = jax.jacfwd(residual, has_aux=True)(theta)
    return value, jacobian


def _end_error(theta, ends, process, solver, x_T, exact) -> Float[Array, " numbers"]:
    shares = jnp.cumsum(jax.nn.softmax(theta))
    inner = ends[0] + (ends[1] - ends[0]) * shares[:-1]
    levels = jnp.concatenate([ends[:1], inner, ends[1:]])
    times = require_affine(process.sde, "optimised_grids").log_snr_inverse(levels).astype(x_T.dtype)
    saveat = diffrax.SaveAt(t1=True)
    solution = solve_on_grid(process, x_T, -times, solver, NoNoise(), diffrax.ForwardMode(), saveat)
    return (solution.states[-1] - exact).ravel()


def _check(process: ProbabilityFlow, solver: diffrax.AbstractSolver, n: int, iterations: int, steps: int) -> None:
    check_instance(ProbabilityFlow, process=process)
    check_instance(diffrax.AbstractSolver, solver=solver)
    check_count(n=n, iterations=iterations, reference_steps=steps)
    if isinstance(solver, AbstractReverseSolver):
        solver.check(process)  # a deterministic one
    else:
        check_diffrax_solver(solver, process)
        check_diffrax_steps(solver, process, on_grid=True, to_data=False)
