"""The solves that are differentiated, and the ways of doing it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import sdelab
from sdelab import grids, solvers
from sdelab.sampling import Joint, ReplayAcceptedSteps

SDE = sdelab.VP()
DIMENSIONS = 16


class Case(NamedTuple):
    """One solve under one adjoint; `forward_mode` takes the derivative in one direction instead of the gradient."""

    solve: str
    name: str
    arguments: dict[str, Any]
    forward_mode: bool = False


def cases(steps: int, apply: Callable[..., Any], params: Any, x_T: jax.Array) -> list[Case]:
    """A fixed grid by our solver and by one of diffrax's, and adaptive steps; the first row of each is the default adjoint.

    A replay is given room for as many steps as are accepted.
    """
    grid = grids.uniform(SDE, steps, t_min=0.02)
    ours = dict(solver=solvers.Heun(), grid=grid)
    theirs = dict(solver=diffrax.Heun(), grid=grid)
    adaptive: dict[str, Any] = dict(
        solver=diffrax.Heun(), rtol=1e-3, grid=[1.0, 0.02], error_control=Joint(), max_steps=1024
    )
    default, every = diffrax.RecursiveCheckpointAdjoint(), diffrax.RecursiveCheckpointAdjoint(checkpoints=steps)
    info = sdelab.sample_with_info(None, flow(apply, params), x_T, **adaptive)[1]
    replay = ReplayAcceptedSteps(steps=int(info.accepted[0]))
    rows: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
        (ours, f"Heun, {steps} steps", {"checkpoints": default, "all checkpoints": every}),
        (theirs, f"diffrax.Heun, {steps} steps", {"checkpoints": default, "backsolve": diffrax.BacksolveAdjoint()}),
        (
            adaptive,
            f"diffrax.Heun, {info.accepted[0]} + {info.rejected[0]} steps",
            {"checkpoints": default, "replay": replay},
        ),
    ]
    rows[0][2]["direct"] = diffrax.DirectAdjoint()
    rows[0][2]["forward mode"] = diffrax.ForwardMode()
    rows[2][2]["backsolve"] = diffrax.BacksolveAdjoint()
    return [
        Case(solve, name, {**arguments, "adjoint": adjoint}, forward_mode=name == "forward mode")
        for arguments, solve, adjoints in rows
        for name, adjoint in adjoints.items()
    ]


class Functions(NamedTuple):
    """`forward(params, x_T)`, a number; and its derivative by both: a gradient, or a number along a fixed direction."""

    forward: Callable[..., Any]
    derivative: Callable[..., Any]


def flow(apply: Callable[..., Any], params: Any) -> sdelab.ProbabilityFlow:
    return sdelab.ProbabilityFlow(SDE, sdelab.score.NetworkScore(SDE, sdelab.score.NoisePrediction(), apply, params))


def functions(case: Case, apply: Callable[..., Any]) -> Functions:
    def loss(params: Any, x_T: jax.Array) -> jax.Array:
        x = sdelab.sample(None, flow(apply, params), x_T, **case.arguments)
        return jnp.mean(jnp.sin(x))

    def push(params: Any, x_T: jax.Array) -> jax.Array:
        return jax.jvp(loss, (params, x_T), direction((params, x_T)))[1]

    return Functions(loss, push if case.forward_mode else jax.grad(loss, (0, 1)))


def direction(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs themselves: a direction in which all of them change."""
    return inputs


def along(derivative: Any, inputs: tuple[Any, ...]) -> float:
    """The derivative along `direction`, from a gradient; of forward mode it is the number itself."""
    if isinstance(derivative, jax.Array):
        return float(derivative)
    terms = jax.tree.map(lambda g, d: np.sum(np.asarray(g, np.float64) * np.asarray(d)), derivative, direction(inputs))
    return float(sum(jax.tree.leaves(terms)))


def network(width: int, batch: int) -> tuple[Callable[..., Any], Any, jax.Array]:
    """The residual MLP of `sdelab.nn`, its last layer not zero, and states at the start."""
    apply, params = sdelab.nn.as_function(sdelab.nn.MLP(DIMENSIONS, width=width, rngs=nnx.Rngs(0)))
    last = 0.3 * jax.random.normal(jax.random.key(1), params["last"]["kernel"].shape) / width**0.5
    params = {**params, "last": {**params["last"], "kernel": last}}
    return apply, params, jax.random.normal(jax.random.key(2), (batch, DIMENSIONS))
