"""The arithmetic of a model, counted in the function itself: what a compiler makes of it may do more, or less."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from sdelab._compile import jaxprs_in


def product_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs of the matrix products and convolutions of `function(*arguments)`, two for a multiplication with its addition.

    Arguments may be shapes: nothing is computed. A loop of known length counts as often as it turns, another once; of
    branches counts the most expensive one; what is recomputed in a backward pass is not part of a forward one.
    """
    return _count(jax.make_jaxpr(function)(*arguments))


def _count(jaxpr: ClosedJaxpr | Jaxpr) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        summed = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * equation.outvars[0].aval.size * summed
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"]
        _, features, *window = (kernel[axis] for axis in numbers.rhs_spec)
        # of an input that is spread out by zeros, the zeros are no work
        return 2 * equation.outvars[0].aval.size * features * math.prod(window) // math.prod(params["lhs_dilation"])
    inside = [_count(jaxpr) for jaxpr in jaxprs_in(params)]
    if name == "cond":
        return max(inside)
    return sum(inside) * (params["length"] if name == "scan" else 1)
