r"""cuDNN's flash attention, differentiable both ways. It has a backward pass of its own and no forward mode.

Its derivative along $(\dot q, \dot k, \dot v)$ is a linear map, here a primitive: computed, it is that of the formula; transposed,
as gradients want it, it is cuDNN's backward pass. What is mapped over tangents, or derived twice, is the formula's too.
"""

from typing import Any, TypeAlias

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Heads: TypeAlias = Float[Array, "batch pixels heads channels"]


def formula(query: Heads, key: Heads, value: Heads) -> Heads:
    """By XLA, as it is written."""
    with jax.numpy_dtype_promotion("standard"):  # its softmax of bfloat16 is in float32
        return jax.nn.dot_product_attention(query, key, value)


def fused(query: Heads, key: Heads, value: Heads) -> Heads:
    """By cuDNN; differentiable backwards only."""
    with jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


@jax.custom_jvp
def flash_attention(query: Heads, key: Heads, value: Heads) -> Heads:
    """`formula` by cuDNN, which must take such arrays: see `sdelab.nn.attention.takes_flash_attention`."""
    return fused(query, key, value)


@flash_attention.defjvp
def _derivative(primals: Any, tangents: Any) -> tuple[Array, Array]:
    out, pull_back = jax.vjp(fused, *primals)
    kept, structure = jax.tree.flatten(pull_back)  # for the backward pass, so that cuDNN's forward pass is not repeated
    return out, _push_forward.bind(*primals, *tangents, *kept, structure=structure)


_push_forward = Primitive("flash_attention_push_forward")
"""Of query, key and value, their tangents, and what the backward pass needs, leaves of a tree of this `structure`."""


def _by_formula(*arguments: Any, structure: Any = None) -> Array:
    return jax.jvp(formula, arguments[:3], arguments[3:6])[1]


def _transposed(cotangent: Any, *arguments: Any, structure: Any) -> list[Any]:
    kept = arguments[6:]
    pulled = jax.tree.unflatten(structure, kept)(cotangent)
    return [None] * 3 + list(pulled) + [None] * len(kept)


def _mapped(arguments: Any, axes: Any, *, structure: Any) -> tuple[Array, int]:
    return jax.vmap(lambda *six: _by_formula(*six, structure=structure), tuple(axes[:6]))(*arguments[:6]), 0


def _derived(primals: Any, tangents: Any, *, structure: Any) -> tuple[Array, Array]:
    six = [ad.instantiate_zeros(t) for t in tangents[:6]]
    return jax.jvp(lambda *arguments: _by_formula(*arguments, structure=structure), primals[:6], tuple(six))


_evaluated = jax.jit(_by_formula)
_push_forward.def_impl(lambda *arguments, structure: _evaluated(*arguments[:6]))
_push_forward.def_abstract_eval(lambda query, *rest, structure: query)
ad.primitive_transposes[_push_forward] = _transposed
ad.primitive_jvps[_push_forward] = _derived
batching.primitive_batchers[_push_forward] = _mapped
mlir.register_lowering(_push_forward, mlir.lower_fun(_by_formula, multiple_results=False))
