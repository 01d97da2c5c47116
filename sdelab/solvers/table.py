r"""Every solver in one table: what it claims, what was measured of it, what it costs, what it needs.

The claimed order is the one that the solver itself states, `AbstractReverseSolver.claimed_order`, or diffrax's `order`. The
measured one is read from `measured_orders.json`, which `python -m experiments.orders` writes and a test measures again.
"""

import functools
import json
import math
from collections.abc import Iterator
from importlib import resources
from typing import Any, Literal, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._typing import PRNGKey, State, Time
from sdelab.reverse import ProbabilityFlow, ReverseSDE
from sdelab.sde import AbstractSDE
from sdelab.solvers.base import AbstractReverseSolver, Interval
from sdelab.solvers.catalog import DETERMINISTIC, STOCHASTIC
from sdelab.solvers.diffrax_terms import Cost, cost, is_adaptive, is_per_sample, unwrap

RESULTS = "measured_orders.json"
COST_STEPS = 100  # any number beyond the starts of multistep methods

WEAK_ORDERS = {
    diffrax.Euler: 1,
    diffrax.EulerHeun: 1,
    diffrax.Heun: 1,
    diffrax.SEA: 1,
    diffrax.ShARK: 2,
    diffrax.SRA1: 2,
    diffrax.SPaRK: 2,
    diffrax.SlowRK: 2,
}
"""Weak orders claimed of diffrax's solvers where the noise does not depend on the state; diffrax itself states strong ones."""


class Row(NamedTuple):
    """What is known of one solver.

    `kind`: "deterministic" on a `ProbabilityFlow`, "stochastic" on a `ReverseSDE`. `claimed_order`: of the flow, or weak; None
    where none is claimed. `measured_order`: the lowest over processes and data, `inf` for an exact one, None where none was
    measured. `evaluations` of the score a step, `start` on top once (less than 0 where the first steps save some), None for
    implicit solvers, which iterate. `needs` and `adaptive` as the table shows them.
    """

    name: str
    kind: Literal["deterministic", "stochastic"]
    claimed_order: int | None
    measured_order: float | None
    evaluations: int | None
    start: int | None
    needs: str
    adaptive: bool


class SolverTable(tuple[Row, ...]):
    """The rows; `str` gives them as a markdown table."""

    def __str__(self) -> str:
        head = ["solver", "process", "claimed order", "measured", "evaluations a step", "needs", "adaptive"]
        lines = [head, ["---"] * len(head), *(_cells(row) for row in self)]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)

    __repr__ = __str__


def table() -> SolverTable:
    """All solvers of sdelab, and those of diffrax that solve a reverse process, in the order of the catalogue."""
    return SolverTable(_rows())


def claimed_order(solver: diffrax.AbstractSolver, kind: Literal["deterministic", "stochastic"]) -> int | None:
    """The order that a solver claims on a process of that kind: of the flow, or weak, of the reverse SDE; None without a claim."""
    if isinstance(solver, AbstractReverseSolver):
        return solver.claimed_order()
    if kind == "stochastic":
        return WEAK_ORDERS.get(type(unwrap(solver)))
    return solver.order(diffrax.ODETerm(lambda t, y, args: y))


def _rows() -> Iterator[Row]:
    catalogues: dict[Literal["deterministic", "stochastic"], dict[str, diffrax.AbstractSolver]] = {
        "deterministic": DETERMINISTIC,
        "stochastic": STOCHASTIC,
    }
    for kind, solvers in catalogues.items():
        measured = measured_orders()[kind]
        for name, solver in solvers.items():
            orders = measured.get(name, {}).values()
            lowest = min(orders) if orders else None
            step, start = _evaluations(solver)
            yield Row(
                name, kind, claimed_order(solver, kind), lowest, step, start, _needs(solver), _adaptive(solver, kind)
            )


@functools.cache
def measured_orders() -> dict[str, dict[str, dict[str, float]]]:
    """The stored orders, by kind, solver, and "process, data"; `inf` where the method is exact."""
    text = resources.files("sdelab.solvers").joinpath(RESULTS).read_text(encoding="utf-8")
    return json.loads(text)["orders"]


def _evaluations(solver: diffrax.AbstractSolver) -> tuple[int, int] | tuple[None, None]:
    """Evaluations of one more step, and those on top of it in the first ones."""
    if isinstance(solver, AbstractReverseSolver):
        total = solver.evaluations(COST_STEPS, False)
        step = solver.evaluations(COST_STEPS + 1, False) - total
        return step, total - COST_STEPS * step
    known: Cost | None = cost(solver)
    return (None, None) if known is None else (known.per_step, known.once)


def _adaptive(solver: diffrax.AbstractSolver, kind: str) -> bool:
    return not isinstance(solver, AbstractReverseSolver) and is_adaptive(solver, stochastic=kind == "stochastic")


def _needs(solver: diffrax.AbstractSolver) -> str:
    if isinstance(solver, AbstractReverseSolver):
        return "kernel" if _needs_kernel(solver) else "drift and diffusion"
    return "drift and diffusion" + (", samples one by one" if is_per_sample(solver) else "")


def _needs_kernel(solver: AbstractReverseSolver) -> bool:
    """Whether a step on a process without one is refused."""
    sde = _WithoutKernel()
    score = lambda x, t: -x  # noqa: E731
    process = ReverseSDE(sde, score) if solver.kind == "stochastic" else ProbabilityFlow(sde, score)
    x, t = jnp.zeros((1, 1)), jnp.ones(())
    noise, index = jnp.zeros((solver.draws(), 1, 1)), jnp.zeros((), jnp.int32)
    interval = Interval(t, 0.5 * t, index, jnp.zeros((), bool), noise)
    try:
        solver.check(process)
        jax.eval_shape(lambda: solver.advance(process, x, interval, solver.initial_memory(process, x)).x)
    except TypeError:
        return True
    return bool(solver.inner_fractions())


class _WithoutKernel(AbstractSDE):
    """Brownian motion that does not say that it has a kernel."""

    t_min: float = eqx.field(default=0.0, static=True)
    t_max: float = eqx.field(default=1.0, static=True)

    def drift(self, x: State, t: Time) -> State:
        return jnp.zeros_like(x)

    def diffusion(self, t: Time) -> Float[Array, "..."]:
        return jnp.ones_like(t)

    def prior_sample(self, key: PRNGKey, shape: tuple[int, ...], dtype: Any = None) -> State:
        return jax.random.normal(key, shape, dtype)

    def prior_log_prob(self, x: State) -> Float[Array, " batch"]:
        return -0.5 * jnp.sum((x**2).reshape(x.shape[0], -1), axis=1)


def _cells(row: Row) -> list[str]:
    if row.evaluations is None:
        evaluations = "as many as the root finds take"
    else:
        evaluations = f"{row.evaluations}" + (f" ({row.start:+d} once)" if row.start else "")
    process = "`ProbabilityFlow`" if row.kind == "deterministic" else "`ReverseSDE`"
    claimed = "—" if row.claimed_order is None else f"{row.claimed_order}"
    adaptive = "yes" if row.adaptive else "no"
    return [f"`{row.name}`", process, claimed, _order(row.measured_order), evaluations, row.needs, adaptive]


def _order(measured: float | None) -> str:
    if measured is None:
        return "—"
    return "exact" if math.isinf(measured) else f"{measured:.2f}"
