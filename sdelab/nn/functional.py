"""From an NNX module to a pure function and a nested dict of its parameters."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array


class Apply:
    """The pure function `(params, *arguments) -> out` of a module's structure: the module's call with these parameters.

    Of a network it is `(params, x, c_noise, condition=None, keys=None) -> out`. Two of them are equal, and hash
    equally, when the modules have the same structure and settings: what is compiled for one serves the other.
    """

    def __init__(self, graphdef: nnx.GraphDef[Any]):
        self._graphdef = graphdef
        self._hash = hash(graphdef)  # once: every call of a jitted function asks for it

    def __call__(self, params: dict[str, Any], *arguments: Any, **named: Any) -> Array:
        return nnx.merge(self._graphdef, params)(*arguments, **named)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Apply) and self._graphdef == other._graphdef)

    def __hash__(self) -> int:
        return self._hash


def as_function(model: nnx.Module) -> tuple[Apply, dict[str, Any]]:
    """Splits a network into a pure function and its parameters, a plain nested dict with names as keys.

    `apply, params = as_function(model)`, then `NetworkScore(sde, preconditioner, apply, params)`; the arrays are the
    model's own. Errors: a model with state beside its parameters (batch statistics, counters, random keys), which
    a pure function cannot keep.
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    if jax.tree.leaves(rest):
        raise ValueError(
            f"{type(model).__name__} holds state beside its parameters: {nnx.to_pure_dict(rest)}; accepted: modules "
            "whose only variables are nnx.Param. Normalise by groups, and pass random keys in the call."
        )
    return Apply(graphdef), nnx.to_pure_dict(params)
