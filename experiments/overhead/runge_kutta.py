r"""What the steps of Runge–Kutta methods in t multiply states, scores and noise by, on a grid of `VP`.

With $r = \beta h$ a slope is $\tfrac12 r y + \tfrac12 (1 + c^2) r s$, where c is 0 for the probability flow and 1 for the
reverse SDE: linear in the state and the score of its stage, so that each stage is known from the scores of those before it.
Coefficients are those of diffrax.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import diffrax
import numpy as np

from experiments.overhead.rivals import BETA_MAX, BETA_MIN, Kernel, Staged

Row = Sequence[float] | np.ndarray


class Stages(NamedTuple):
    r"""Stage i is at $t_0 - c_i h$; row i of `drift` has its weights of the slopes, and row i of each of `noise`, one for each
    normal array, its weights of $g(t_0 - c_j h)$ times that array. The last row of each is the end of the step."""

    c: Row
    drift: list[Row]
    noise: list[tuple[list[Row], float]]
    noise_c: Row
    score: float


def runge_kutta(method: type[diffrax.AbstractERK]) -> Callable[[Kernel], Staged]:
    """The probability flow. A last stage at the end of a step, there for an error estimate or for the next step, is not taken."""
    tableau = cast(diffrax.ButcherTableau, method.tableau)
    rows: list[Row] = [(), *tableau.a_lower, tableau.b_sol]
    rows = rows[:-1] if tableau.fsal else rows
    return numbers_of(Stages((0.0, *tableau.c)[: len(rows) - 1], [row[: len(rows) - 1] for row in rows], [], (), 0.5))


def runge_kutta_with_noise(method: type[diffrax.AbstractERK]) -> Callable[[Kernel], Staged]:
    """The reverse SDE, with the noise of a step as a second slope."""
    tableau = cast(diffrax.ButcherTableau, method.tableau)
    rows, c = [(), *tableau.a_lower, tableau.b_sol], (0.0, *tableau.c)
    return numbers_of(Stages(c, rows, [(rows, 1.0)], c, 1.0))


def stochastic_runge_kutta(method: type[diffrax.AbstractSRK]) -> Callable[[Kernel], Staged]:
    r"""The reverse SDE, by the increment $W = \sqrt h z_0$ and the space-time area $H = \sqrt{h/12} z_1$.

    Foster, dos Reis and Strange (2023), https://arxiv.org/abs/2210.17543. Stages in which the drift is not asked for are not taken.
    """
    tableau = method.tableau
    c, drift = np.append(0.0, tableau.c), [(), *tableau.a, tableau.b_sol]
    skipped = np.zeros(len(c), bool) if tableau.ignore_stage_f is None else tableau.ignore_stage_f
    taken = np.flatnonzero(~skipped)
    rows = [*taken, len(c)]
    w, area = tableau.coeffs_w, cast(Any, tableau.coeffs_hh)
    if tableau.is_additive_noise():  # weights of g at the start and at the end
        by_w, by_area = ([(part.a[i], 0.0) for i in taken] for part in (w, area))
        by_w, by_area, noise_c = [*by_w, (w.b_sol - 0.5, 0.5)], [*by_area, (area.b_sol + 1.0, -1.0)], (0.0, 1.0)
    else:
        by_w, by_area = ([[(), *part.a, part.b_sol][i] for i in rows] for part in (w, area))
        noise_c = c
    noise = [(by_w, 1.0), (by_area, 1.0 / np.sqrt(12.0))]
    return numbers_of(
        Stages(c[taken], [[drift[i][j] for j in taken if j < len(drift[i])] for i in rows], noise, noise_c, 1.0)
    )


def numbers_of(stages: Stages) -> Callable[[Kernel], Staged]:
    count = len(stages.c)

    def numbers(at: Kernel) -> Staged:
        h, start = -np.diff(at.t), at.t[:-1]
        g = [np.sqrt(_beta(start - c * h) * h) for c in stages.noise_c]
        states, slopes = [], []
        for i, weights in enumerate(stages.drift):
            state = np.zeros((1 + count + len(stages.noise), len(h)))  # of the state, of each score, of each noise
            state[0] = 1.0
            for k, (rows, size) in enumerate(stages.noise):
                state[1 + count + k] = size * sum((weight * g[j] for j, weight in enumerate(rows[i])), np.zeros_like(h))
            for weight, slope in zip(weights, slopes, strict=True):
                state = state + weight * slope
            states.append(state)
            if i < count:
                rate = _beta(start - stages.c[i] * h) * h
                slopes.append(0.5 * rate * state)
                slopes[-1][1 + i] += stages.score * rate
        t, found = np.stack([start - c * h for c in stages.c], axis=1), np.stack(states).transpose(2, 0, 1)
        a, b, n = found[:, 1:, 0], found[:, 1:, 1 : 1 + count], found[:, :, 1 + count :]
        return Staged(t, a, b, first=n[:, 0] if np.any(n[:, 0]) else None, noises=n[:, 1:] if stages.noise else None)

    return numbers


def _beta(t: np.ndarray) -> np.ndarray:
    return BETA_MIN + t * (BETA_MAX - BETA_MIN)
