"""Callables as parts of pytrees."""

from collections.abc import Callable
from typing import Any

import jax


def as_pytree_callable(function: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function becomes a pytree without leaves; a module keeps its own leaves.

    So that what holds it can pass through `jax.jit`, `jax.grad` and `jax.vmap`. The same function object gives
    the same tree structure: nothing recompiles.
    """
    if not callable(function):
        raise TypeError(f"expected a callable; got {function!r} of type {type(function).__name__}.")
    leaves = jax.tree.leaves(function)
    return jax.tree_util.Partial(function) if any(leaf is function for leaf in leaves) else function
