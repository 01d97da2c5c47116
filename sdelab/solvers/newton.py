r"""The integral of an interpolating polynomial, in Newton's form: weights of the values that it passes through.

Through the nodes $\theta_0, \theta_1, \dots$, in units of the interval, passes
$P(\theta) = \sum_j P[\theta_0, \dots, \theta_j] N_j(\theta)$ with $N_j = \prod_{i<j} (\theta - \theta_i)$. To lower the order is to
leave out the last terms; the order of the nodes is free.
"""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

ScalarArray = Float[Array, ""]


class AbstractLinearTerm(eqx.Module):
    r"""The integral of $N_1 = \theta$ where it is the last term. Any $K_1 + O(h)$ relative to it keeps the second order."""

    @abc.abstractmethod
    def integral(self, moments: Sequence[ScalarArray], h: ScalarArray, scale: ScalarArray) -> ScalarArray:
        r"""From the moments $K_j$, $h$, and `scale`, the factor of $\int_0^h e^{s (h - u)} P\,du$ in the exact solution."""


class VaryingCoefficients(AbstractLinearTerm):
    """$K_1$, as it is. "Taylor" in DPM-Solver's code, "vary_coeff" in UniPC's."""

    def integral(self, moments: Sequence[ScalarArray], h: ScalarArray, scale: ScalarArray) -> ScalarArray:
        return moments[1]


class BH1(AbstractLinearTerm):
    r"""$\tfrac12 B(h)$ with $B = h$. Zhao et al. (2023), section 3.2 and appendix, https://arxiv.org/abs/2302.04867."""

    def integral(self, moments: Sequence[ScalarArray], h: ScalarArray, scale: ScalarArray) -> ScalarArray:
        return 0.5 * h * scale


class BH2(AbstractLinearTerm):
    r"""$\tfrac12 K_0$, that is $B = |e^{s h} - 1|$: UniPC's B_2, and what DPM-Solver(++) of second order takes."""

    def integral(self, moments: Sequence[ScalarArray], h: ScalarArray, scale: ScalarArray) -> ScalarArray:
        return 0.5 * moments[0]


def newton_integrals(nodes: Sequence[ScalarArray], moments: Sequence[ScalarArray]) -> list[ScalarArray]:
    r"""$\int N_j\,dK$ for each of the nodes, from the moments $K_j$, as many."""
    integrals = []
    coefficients = [jnp.ones_like(moments[0])]  # of N_j, lowest power first
    for node in nodes:
        integrals.append(sum(c * k for c, k in zip(coefficients, moments, strict=False)))
        shifted = [jnp.zeros_like(node), *coefficients]
        coefficients = [a - node * b for a, b in zip(shifted, [*coefficients, jnp.zeros_like(node)], strict=True)]
    return integrals


def weights(
    nodes: Sequence[ScalarArray],
    integrals: Sequence[ScalarArray],
    order: Int[Array, ""] | int,
    linear: ScalarArray | None = None,
) -> list[ScalarArray]:
    r"""The weights of $P(\theta_0), P(\theta_1), \dots$ in $\int P\,dK$ when the first `order` terms are kept.

    `linear` stands for the second integral where it is the last one. The nodes must be distinct.
    """
    totals = [jnp.zeros_like(nodes[0]) for _ in nodes]
    for j, integral in enumerate(integrals):
        if j == 1 and linear is not None:
            integral = jnp.where(order == 2, linear, integral)
        kept = jnp.where(j < order, integral, 0.0)
        for i in range(j + 1):
            divisor = jnp.ones_like(integral)
            for other in range(j + 1):
                divisor = divisor * (nodes[i] - nodes[other]) if other != i else divisor
            totals[i] = totals[i] + kept / divisor
    return totals
