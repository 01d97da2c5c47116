"""Callables as parts of pytrees."""

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def as_pytree_callable(function: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function becomes a pytree without leaves; a module keeps its own leaves.

    So that what holds it can pass through `jax.jit`, `jax.grad` and `jax.vmap`. The same function object gives
    the same tree structure: nothing recompiles.
    """
    if not callable(function):
        raise TypeError(f"expected a callable; got {function!r} of type {type(function).__name__}.")
    leaves = jax.tree.leaves(function)
    return jax.tree_util.Partial(function) if any(leaf is function for leaf in leaves) else function


def with_arguments_of(
    function: Callable[Arguments, Any],
) -> Callable[[Callable[..., Result]], Callable[Arguments, Result]]:
    """For a wrapper that passes its arguments on: editors and notebooks show `function`'s signature for it."""

    def show(wrapper: Callable[..., Result]) -> Callable[Arguments, Result]:
        returned = inspect.signature(wrapper).return_annotation
        wrapper.__dict__["__signature__"] = inspect.signature(function).replace(return_annotation=returned)
        return wrapper

    return show
