"""Checks of a solver through the public `sample`, as a user calls it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdelab._typing import State
from sdelab.sampling import sample
from sdelab.solvers.noise import sample_keys
from sdelab.testing.order import stepped, two_components
from sdelab.testing.report import Finding, bounded, failure, passed
from sdelab.testing.solver_case import ObservedScore, ScaledScore, SolverCase

BATCH, STEPS = 3, 4
DIFFERENCE = 1e-5  # of finite differences, central: the error is its square


def run(case: SolverCase, score: Any, x: State, keys: Any = None) -> State:
    keys = _keys() if keys is None else keys
    return sample(keys, case.process(score), x, solver=case.solver, grid=case.grid(STEPS))


def second_call(case: SolverCase) -> list[Finding]:
    """The score is not traced again: nothing is compiled."""
    traces: list[int] = []
    score = ObservedScore(two_components().score(case.sde), lambda: traces.append(1), lambda: None)
    x = _start(case)
    run(case, score, x)
    first = len(traces)
    run(case, score, x + 1.0)
    name, more = f"second call{case.title}", len(traces) - first
    if more:
        return [failure(name, f"traces the score {more} times more: it compiles again")]
    return [passed(name, "compiles nothing")]


def gradients(case: SolverCase) -> list[Finding]:
    """By the state and by a parameter of the score, in reverse mode under `jit`, against finite differences."""
    exact, x = two_components().score(case.sde), _start(case)
    weights, direction = jax.random.normal(jax.random.key(5), (2, *x.shape))

    def objective(x: State, scale: Any) -> Any:
        return jnp.sum(weights * run(case, ScaledScore(exact, scale), x))

    one = jnp.ones(())
    value, (by_x, by_scale) = jax.jit(jax.value_and_grad(objective, (0, 1)))(x, one)
    plain = jax.jit(objective)
    h = DIFFERENCE
    along_x = (plain(x + h * direction, one) - plain(x - h * direction, one)) / (2 * h)
    along_scale = (plain(x, one + h) - plain(x, one - h)) / (2 * h)
    size = float(jnp.abs(value))
    return [
        _close(f"gradients: value under jit{case.title}", float(plain(x, one)), float(objective(x, one)), size),
        _close(f"gradients: by the state{case.title}", float(jnp.sum(by_x * direction)), float(along_x), size),
        _close(f"gradients: by the score{case.title}", float(by_scale), float(along_scale), size),
    ]


def _close(name: str, ours: float, expected: float, size: float) -> Finding:
    error = abs(ours - expected) / (abs(expected) + 1e-3 * size)
    words = f"{ours:.6g} against {expected:.6g}"
    return bounded(name, error, 1e-5, fine=words, broken=words)


def companions(case: SolverCase) -> list[Finding]:
    """A sample is the same whatever the others are."""
    score, x, keys = two_components().score(case.sde), _start(case), _keys()
    alone = np.asarray(run(case, score, x, keys))[0]
    others = jnp.concatenate([x[:1], 3.0 * x[1:] + 1.0])
    other_keys = jnp.concatenate([keys[:1], sample_keys(jax.random.key(6), BATCH - 1)])
    error = float(np.max(np.abs(np.asarray(run(case, score, others, other_keys))[0] - alone)))
    broken = f"a sample changes by {error:.1e} with its companions: something is taken over the batch"
    return [
        bounded(f"batch{case.title}", error, 1e-6, fine="a sample does not depend on its companions", broken=broken)
    ]


def precision(case: SolverCase) -> list[Finding]:
    """Single steps of float32 and of float64 states, where float64 is enabled."""
    findings, process, grid = [], case.mixture_process(), case.grid(2)
    for dtype in (jnp.float32, jnp.float64):
        given = jnp.dtype(dtype).name
        x = case.states(two_components(), BATCH, float(grid[0]), dtype)
        found = stepped(case.solver, process, x, grid, case.noise(2, BATCH, dtype)).dtype
        name = f"precision: {given}{case.title}"
        findings.append(passed(name, "is kept") if found == dtype else failure(name, f"becomes {found}"))
    return findings


def _start(case: SolverCase) -> State:
    return case.states(two_components(), BATCH, float(case.grid(STEPS)[0]))


def _keys() -> Any:
    return sample_keys(jax.random.key(4), BATCH)
