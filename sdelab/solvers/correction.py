import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from equinox import AbstractClassVar
from jaxtyping import Array, Int

from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.base import PastTimes
from sdelab.solvers.combination import Combination
from sdelab.solvers.history import Known
from sdelab.solvers.newton import AbstractLinearTerm, newton_integrals, weights
from sdelab.solvers.prediction import AbstractPrediction, Span


class AbstractCorrection(eqx.Module):
    """What a multistep method does with the prediction at the end of a step, beside taking the next step with it.

    `gain`: by how much it raises the order, and how many predictions more it remembers.
    """

    gain: AbstractClassVar[int]

    @abc.abstractmethod
    def again(
        self,
        sde: AbstractAffineSDE,
        known: Known,
        past: PastTimes,
        *,
        order: Int[Array, ""],
        prediction: AbstractPrediction,
        rule: AbstractLinearTerm | None,
    ) -> Combination | None:
        """The last step again, from the state where it began, with all the `known` predictions, that at its end the first.

        `past`: the times at which it and those before it began. `order`: the one that it had. None: what it gave stays.
        """


class NoCorrection(AbstractCorrection):
    """Nothing."""

    gain: ClassVar = 0

    def again(self, sde, known, past, *, order, prediction, rule) -> None:
        return None


class UniC(AbstractCorrection):
    r"""The exponential Adams–Moulton method: the polynomial passes through the prediction at the end of the step too.

    It raises the order by one, and costs no evaluation. In Zhao et al. (2023), section 3.1, https://arxiv.org/abs/2302.04867,
    the coefficients solve a linear system; with as many equations as unknowns they are this polynomial's, whatever B(h).
    (The published "vary_coeff" leaves one equation out, and its corrector is of order 1.)
    """

    gain: ClassVar = 1

    def again(self, sde, known: Known, past, *, order, prediction, rule) -> Combination:
        t, t_end = past[0], known.times[0]  # where the last step began and ended
        ends = jnp.stack([t, t_end])
        alpha, sigma = sde.alpha(ends), sde.sigma(ends)
        last = Span(
            t, t_end, alpha[0], alpha[1], sigma[0], sigma[1], known.levels[1], known.levels[0], jnp.zeros((), bool)
        )
        nodes = [(known.levels[j] - last.level0) / last.h for j in (1, 0, *range(2, len(known.levels)))]
        moments = prediction.moments(last, len(nodes))
        factor, scale = prediction.factors(last)
        linear = None if rule is None else rule.integral(moments, last.h, scale)
        first, second, *rest = weights(nodes, newton_integrals(nodes, moments), order + 1, linear)
        return Combination(factor, (second, first, *rest))
