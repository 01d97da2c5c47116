r"""diffrax's explicit Runge–Kutta methods on a grid, for the reverse process of an affine SDE, with the numbers of all steps known.

The drift is linear in the state and the score, $f(t)\,x - \tfrac12 (1 + c^2) g^2 s$, and the noise does not depend on the
state: every stage is a combination of the state, the scores of the stages before it and the noise of the step. diffrax,
which cannot know that, computes f and g in every step, and runs a loop over the stages inside its loop over the steps: on
short steps that takes longer than the method.
"""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdelab._compile import operations
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow, ReverseSDE, require_affine
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step

LONGEST = 600
"""A step of one stage is compiled as it is written, and so is a deterministic one of at most so many operations, those of its
scores together. Any other is a loop over its stages, which compiles the network once. In a loop a score and the noise are computed
once; of what is written out XLA may compute an expression again in everything that reads it."""

Row = tuple[float, ...]


class Tableau(NamedTuple):
    r"""A method of S stages, at $t_i = t_0 - c_i h$. Of each stage's state, and in the last place of the end of the step, `drift` has
    the weights of the slopes before it, and each of `noise` those of $\sqrt h\,g(t_0 - c_j h)\,z$, with z one normal array for all
    of them, at the `noise_c`.

    Stages whose drift is not asked for are left out. So is a last one at the end of the step, there for an error estimate or
    for the next step ("FSAL"): the next step evaluates there anyway.
    """

    c: Row
    drift: tuple[Row, ...]
    noise: tuple[tuple[Row, ...], ...] = ()
    noise_c: Row = ()


FLOW = (
    diffrax.Euler,
    diffrax.Heun,
    diffrax.Midpoint,
    diffrax.Ralston,
    diffrax.Bosh3,
    diffrax.Tsit5,
    diffrax.Dopri5,
    diffrax.Dopri8,
)
SDE = (
    diffrax.Euler,
    diffrax.EulerHeun,
    diffrax.Heun,
    diffrax.Midpoint,
    diffrax.Ralston,
    diffrax.SEA,
    diffrax.ShARK,
    diffrax.SRA1,
    diffrax.GeneralShARK,
    diffrax.SPaRK,
    diffrax.SlowRK,
)
ONE_STAGE = (diffrax.Euler, diffrax.EulerHeun)


@functools.cache
def flow_tableau(method: type[diffrax.AbstractSolver]) -> Tableau:
    if method in ONE_STAGE:
        return Tableau((0.0,), ((), (1.0,)))
    tableau = cast(diffrax.ButcherTableau, cast(Any, method).tableau)
    rows = ((), *tableau.a_lower, tableau.b_sol)
    rows = rows[:-1] if tableau.fsal else rows
    stages = len(rows) - 1
    return Tableau(_row((0.0, *tableau.c)[:stages]), tuple(_row(row[:stages]) for row in rows))


@functools.cache
def sde_tableau(method: type[diffrax.AbstractSolver]) -> Tableau:
    if not issubclass(method, diffrax.AbstractSRK):  # the noise of the step is a second slope
        flow = flow_tableau(method)
        return Tableau(flow.c, flow.drift, (flow.drift,), flow.c)
    tableau = method.tableau
    c, drift = (0.0, *tableau.c), ((), *tableau.a, tableau.b_sol)
    skipped = tableau.ignore_stage_f
    stages = [i for i in range(len(c)) if skipped is None or not skipped[i]]
    noise, noise_c = (_additive if tableau.is_additive_noise() else _general)(tableau, [*stages, len(c)])
    taken = tuple(_row(drift[i][j] for j in stages if j < len(drift[i])) for i in [*stages, len(c)])
    return Tableau(_row(c[i] for i in stages), taken, noise, noise_c)


def _additive(tableau: Any, rows: list[int]) -> tuple[tuple[tuple[Row, ...], ...], Row]:
    """Weights of g at both ends of the step; that at its end comes in by a correction, (g1 - g0) (W / 2 - H)."""
    *stages, _ = rows
    (w, area), of_h = (tableau.coeffs_w, tableau.coeffs_hh), 12.0**-0.5
    by_w = tuple(_row((w.a[i], 0.0)) for i in stages)
    by_area = tuple(_row((of_h * area.a[i], 0.0)) for i in stages)
    return ((*by_w, _row((w.b_sol - 0.5, 0.5))), (*by_area, _row((of_h * (area.b_sol + 1.0), -of_h)))), (0.0, 1.0)


def _general(tableau: Any, rows: list[int]) -> tuple[tuple[tuple[Row, ...], ...], Row]:
    """Weights of g at all stages, of those too whose drift is not asked for."""
    parts = (tableau.coeffs_w, 1.0), (tableau.coeffs_hh, 12.0**-0.5)
    noise = tuple(tuple(_row(size * np.asarray(((), *part.a, part.b_sol)[i])) for i in rows) for part, size in parts)
    return noise, _row((0.0, *tableau.c))


def _row(values: Any) -> Row:
    return tuple(float(value) for value in values)


def with_known_numbers(solver: diffrax.AbstractSolver, process: AbstractReverseProcess) -> "AbstractRungeKutta | None":
    """The same method in this form, if it has one for this process: not for a subclass, which may do something else."""
    if not isinstance(process.sde, AbstractAffineSDE):
        return None
    if type(process) is ProbabilityFlow and type(solver) in FLOW:
        return FlowRungeKutta(type(solver))
    if type(process) is ReverseSDE and type(solver) in SDE:
        return SDERungeKutta(type(solver))
    return None


class StageNumbers(eqx.Module):
    """Of a step. `times`: those of the stages. `states`: a row for the state of each stage and one for the end of the step, with
    the factors of the state at the start, of the scores, and of the normal arrays."""

    times: Float[Array, " stages"]
    states: Float[Array, "stages_plus_1 parts"]


class AbstractRungeKutta(AbstractReverseSolver):
    r"""An explicit Runge–Kutta method in t for the reverse process of an affine SDE, with $h = t_0 - t_1$, $t_i = t_0 - c_i h$:

    $k_i = h\,[-f_i y_i + \tfrac12 (1 + c^2) g_i^2 s(y_i, t_i)]$, $\quad y_i = x_0 + \sum_{j < i} a_{ij} k_j + n_i$, and $x_1$ likewise,

    where $n_i$ is noise whose weights are those of `Tableau`. It is `method` of diffrax to rounding, with the same noise. Hairer,
    Nørsett and Wanner (1993), Solving Ordinary Differential Equations I, section II.1; Foster, dos Reis and Strange (2023),
    https://arxiv.org/abs/2210.17543, section 6. Fields: `method`, one of `FLOW` or of `SDE`.
    """

    method: eqx.AbstractVar[type[diffrax.AbstractSolver]]

    @property
    def tableau(self) -> Tableau:
        return (sde_tableau if self.kind == "stochastic" else flow_tableau)(self.method)

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> StageNumbers:
        sde, (t0, t1) = require_affine(process.sde, self.method.__name__), (interval.t0, interval.t1)
        tableau, h, unit = self.tableau, t0 - t1, jnp.ones((1, 1), interval.t0.dtype)
        stages = len(tableau.c)

        def at(c: float) -> Any:
            return t1 if c == 1.0 else t0 - c * h

        def basis(i: int) -> Array:
            return jnp.asarray(np.eye(1 + stages + len(tableau.noise))[i], h.dtype)

        sizes = [jnp.sqrt(h) * process.diffusion(at(c)) for c in tableau.noise_c]
        states, slopes = [], []
        for i, weights in enumerate(tableau.drift):
            noises = [_weighted(rows[i], sizes) * basis(1 + stages + k) for k, rows in enumerate(tableau.noise)]
            states.append(sum(noises, basis(0)) + _weighted(weights, slopes))
            if i < stages:
                t = at(tableau.c[i])
                own = process.score_weight() * sde.diffusion(t) ** 2 * basis(1 + i)
                slopes.append(h * (own - sde.drift(unit, t)[0, 0] * states[-1]))
        times = jnp.stack([jnp.asarray(at(c), h.dtype) for c in tableau.c])
        return StageNumbers(times, jnp.stack(states))

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        numbers, stages = self.numbers_of(process, interval), len(self.tableau.c)
        if stages == 1 or (not self.draws() and self._operations(process, x, numbers) <= LONGEST):
            return self._as_written(process, x, interval.noise, numbers)
        return self._in_a_loop(process, x, interval.noise, numbers)

    def _operations(self, process: AbstractReverseProcess, x: State, numbers: StageNumbers) -> int:
        """Counted by tracing the score once."""
        return len(self.tableau.c) * operations(process.evaluate, x, numbers.times[0])

    def _as_written(self, process: AbstractReverseProcess, x: State, noise: Array, numbers: StageNumbers) -> Step:
        tableau, scores = self.tableau, []
        stages = len(tableau.c)

        def mean(i: int) -> State:
            return _plus(numbers.states[i, 0] * x, numbers.states[i, 1:], scores) if i else x

        def state(i: int) -> State:
            present = any(any(rows[i]) for rows in tableau.noise)
            return _plus(mean(i), numbers.states[i, 1 + stages :], noise) if present else mean(i)

        for i in range(stages):
            scores.append(process.evaluate(state(i), numbers.times[i]))
        return Step(state(stages), mean(stages))

    def _in_a_loop(self, process: AbstractReverseProcess, x: State, noise: Array, numbers: StageNumbers) -> Step:
        """All states grow together, each score added to those after it: they are linear, so that nothing but the stage's own state is
        kept for the way back, on which its score is computed again. There is noise in every stage, and no mean to be told from it."""
        stages, evaluate = len(self.tableau.c), eqx.filter_checkpoint(process.evaluate)

        def stage(states: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
            i, t, weights = now
            return states + _outer(weights, evaluate(states[i], t)), None

        states = _outer(numbers.states[:, 0], x)
        for k, z in enumerate(noise):
            states = states + _outer(numbers.states[:, 1 + stages + k], z)
        along = jnp.arange(stages), numbers.times, numbers.states[:, 1 : 1 + stages].T
        states, _ = jax.lax.scan(stage, states, along)
        return Step(states[-1], states[-1])

    def evaluations(self, steps: int, to_data: bool) -> int:
        return len(self.tableau.c) * steps

    def draws(self) -> int:
        return len(self.tableau.noise)


class FlowRungeKutta(AbstractRungeKutta):
    """Of a probability flow."""

    method: type[diffrax.AbstractSolver] = eqx.field(static=True)
    kind: ClassVar = "deterministic"


class SDERungeKutta(AbstractRungeKutta):
    """Of a reverse SDE."""

    method: type[diffrax.AbstractSolver] = eqx.field(static=True)
    kind: ClassVar = "stochastic"


def _weighted(weights: Row, values: Sequence[Array]) -> Any:
    """Without the terms whose weight is zero."""
    return sum((weight * value for weight, value in zip(weights, values, strict=False) if weight), 0.0)


def _plus(x: State, weights: Array, values: Any) -> State:
    for j, value in enumerate(values):
        x = x + weights[j] * value
    return x


def _outer(weights: Float[Array, " states"], value: State) -> Array:
    return jnp.expand_dims(weights, tuple(range(1, 1 + value.ndim))) * value[None]
