r"""diffrax's shortest explicit Runge–Kutta methods on a grid, for the flow of an affine process, with the numbers of all steps known.

The flow is linear in the state and the score, $dx = [f(t)\,x - \tfrac12 g^2 s]\,dt$, so that every stage is a combination
of the state and the scores of the stages before it. diffrax, which cannot know that, computes f and g in every step, and
runs a loop over the stages inside its loop over the steps: on short steps that takes longer than the method.
"""

from typing import Any, ClassVar, NamedTuple, cast

import diffrax
import equinox as eqx
import jax.numpy as jnp

from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow, require_affine
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step
from sdelab.solvers.combination import Combination
from sdelab.solvers.prediction import ScalarArray


class Tableau(NamedTuple):
    """Row i of `weights` gives the state after stage i, the last one $x_1$; `c` are the times of the stages in the step."""

    weights: tuple[tuple[float, ...], ...]
    c: tuple[float, ...]


def _tableau(kind: type[diffrax.AbstractERK]) -> Tableau:
    tableau = cast(diffrax.ButcherTableau, kind.tableau)
    rows = (*tableau.a_lower, tableau.b_sol)
    return Tableau(tuple(tuple(map(float, row)) for row in rows), (0.0, *map(float, tableau.c)))


TABLEAUS = {
    diffrax.Euler: Tableau(((1.0,),), (0.0,)),
    **{kind: _tableau(kind) for kind in (diffrax.Heun, diffrax.Midpoint, diffrax.Ralston)},
}
"""Methods of one or two stages. Longer ones stay with diffrax's loop over stages, which compiles the network once and not for
every stage; there a step is long."""


def with_known_numbers(solver: diffrax.AbstractSolver, process: AbstractReverseProcess) -> "RungeKutta | None":
    """The same method in this form, if it has one for this process: not for a subclass, which may do something else."""
    usual = type(process) is ProbabilityFlow and isinstance(process.sde, AbstractAffineSDE)
    return RungeKutta(type(solver)) if usual and type(solver) in TABLEAUS else None


class StageNumbers(eqx.Module):
    """Of a step: the times of the stages, and how the states at all but the first, and at the end, come from the scores."""

    times: tuple[ScalarArray, ...]
    states: tuple[Combination, ...]


class RungeKutta(AbstractReverseSolver):
    r"""An explicit Runge–Kutta method in t for the probability flow of an affine process, with $h = t_0 - t_1$, $t_i = t_0 - c_i h$:

    $k_i = h\,[-f_i y_i + \tfrac12 g_i^2 s(y_i, t_i)]$, $\quad y_i = x_0 + \sum_{j < i} a_{ij} k_j$, $\quad x_1 = x_0 + \sum_i b_i k_i$.

    It is `method` of diffrax to rounding, with as many evaluations. Hairer, Nørsett and Wanner (1993), Solving Ordinary
    Differential Equations I, section II.1. Fields: `method`, a key of `TABLEAUS`.
    """

    method: type[diffrax.AbstractSolver] = eqx.field(static=True)
    kind: ClassVar = "deterministic"

    @property
    def tableau(self) -> Tableau:
        return TABLEAUS[self.method]

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> StageNumbers:
        sde, (t0, t1) = require_affine(process.sde, self.method.__name__), (interval.t0, interval.t1)
        h = t0 - t1
        times = [t1 if c == 1.0 else t0 - c * h for c in self.tableau.c]
        unit = jnp.ones((1, 1), h.dtype)
        slopes, states = [], []
        for t, weights in zip(times, self.tableau.weights, strict=True):
            state = states[-1] if states else Combination(jnp.ones_like(h), ())
            rate = -h * sde.drift(unit, t)[0, 0]
            own = h * process.score_weight() * sde.diffusion(t) ** 2
            slopes.append(Combination(rate * state.factor, (*(rate * weight for weight in state.weights), own)))
            states.append(_added(slopes, weights))
        return StageNumbers(tuple(times), tuple(states))

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        numbers, y, scores = self.numbers_of(process, interval), x, []
        for t, state in zip(numbers.times, numbers.states, strict=True):
            scores.append(process.evaluate(y, t))
            y = state(x, scores)
        return Step(y, y)

    def evaluations(self, steps: int, to_data: bool) -> int:
        return len(self.tableau.c) * steps

    def draws(self) -> int:
        return 0


def _added(slopes: list[Combination], weights: tuple[float, ...]) -> Combination:
    """The state at the start of the step, and a sum of slopes."""
    last = slopes[-1]
    factor, of_scores = jnp.ones_like(last.factor), [jnp.zeros_like(last.factor) for _ in last.weights]
    for weight, slope in zip(weights, slopes, strict=True):
        factor = factor + weight * slope.factor
        for j, value in enumerate(slope.weights):
            of_scores[j] = of_scores[j] + weight * value
    return Combination(factor, tuple(of_scores))
