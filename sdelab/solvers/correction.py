import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from equinox import AbstractClassVar
from jaxtyping import Array, Int

from sdelab._typing import State
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.history import History, Known
from sdelab.solvers.newton import AbstractLinearTerm, combine, newton_integrals, weights
from sdelab.solvers.prediction import AbstractPrediction, Span


class AbstractCorrection(eqx.Module):
    """What a multistep method does with the prediction at the end of a step, beside taking the next step with it.

    `gain`: by how much it raises the order, and how many predictions more it remembers.
    """

    gain: AbstractClassVar[int]

    @abc.abstractmethod
    def apply(
        self,
        sde: AbstractAffineSDE,
        x: State,
        memory: History,
        known: Known,
        *,
        order: Int[Array, ""],
        prediction: AbstractPrediction,
        rule: AbstractLinearTerm | None,
    ) -> State:
        """The last step again, with the prediction at its end, instead of its result `x`.

        `order` is the one that it had, or 0 for no correction.
        """


class NoCorrection(AbstractCorrection):
    """Nothing."""

    gain: ClassVar = 0

    def apply(self, sde, x: State, memory, known, *, order, prediction, rule) -> State:
        return x


class UniC(AbstractCorrection):
    r"""The exponential Adams–Moulton method: the polynomial passes through the prediction at the end of the step too.

    It raises the order by one, and costs no evaluation. In Zhao et al. (2023), section 3.1, https://arxiv.org/abs/2302.04867,
    the coefficients solve a linear system; with as many equations as unknowns they are this polynomial's, whatever B(h).
    (The published "vary_coeff" leaves one equation out, and its corrector is of order 1.)
    """

    gain: ClassVar = 1

    def apply(self, sde, x: State, memory: History, known: Known, *, order, prediction, rule) -> State:
        t, t_end = memory.times[0], known.times[0]  # where the last step began and ended
        ends = jnp.stack([t, t_end])
        alpha, sigma = sde.alpha(ends), sde.sigma(ends)
        last = Span(
            t, t_end, alpha[0], alpha[1], sigma[0], sigma[1], known.levels[1], known.levels[0], jnp.zeros((), bool)
        )
        nodes = [(known.levels[j] - last.level0) / last.h for j in (1, 0, *range(2, len(known.values)))]
        values = [known.values[j] for j in (1, 0, *range(2, len(known.values)))]
        moments = prediction.moments(last, len(nodes))
        factor, scale = prediction.factors(last)
        linear = None if rule is None else rule.integral(moments, last.h, scale)
        parts = weights(nodes, newton_integrals(nodes, moments), order + 1, linear)
        assert memory.previous is not None
        return jnp.where(order > 0, combine(factor, parts, memory.previous, values), x)
