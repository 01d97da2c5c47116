"""Compilation for functions that are called often and must cost little beyond what they compute."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from jaxtyping import Array

T = TypeVar("T")
Result = TypeVar("Result")
Program = Callable[..., Result]


def jit(function: Program[Result], *, numbers: int = 0) -> Program[Result]:
    """`jax.jit` for positional arguments that are trees of arrays and of whatever else can be hashed, such as modules.

    Arrays, of NumPy too, are traced; the rest is the key of the compiled program, with the structure of the trees. In the
    first `numbers` arguments Python's floats are arrays too (`as_arrays`). What is returned must be a tree of arrays.

    It stands in for `equinox.filter_jit` where a call's own time counts: that one waits for the result, so that a loop in Python
    cannot run ahead of the device, and takes longer for arguments and results. Errors of `equinox.error_if` come up in
    JAX's words and not in Equinox's.
    """

    def call(*arguments: Any) -> Result:
        leaves, structure = jax.tree.flatten(arguments[:numbers])
        leaves = _with_arrays(leaves)
        others, structure_of_others = jax.tree.flatten(arguments[numbers:])
        leaves += others
        arrays, key = [], []
        for leaf in leaves:
            if isinstance(leaf, _ARRAYS):
                arrays.append(leaf)
                key.append(_ARRAY)
            else:
                key.append(leaf)
        key = tuple(key)
        return program(arrays, (structure, structure_of_others, key))

    def traced(arrays: list[Any], key: tuple[Any, Any, tuple[Any, ...]]) -> Result:
        *structures, others = key
        rest = iter(arrays)
        leaves = iter([next(rest) if leaf is _ARRAY else leaf for leaf in others])
        trees = [
            jax.tree.unflatten(structure, [next(leaves) for _ in range(structure.num_leaves)])
            for structure in structures
        ]
        return function(*trees[0], *trees[1])

    traced.__name__ = traced.__qualname__ = function.__name__
    program = jax.jit(traced, static_argnums=1)
    call.__name__, call.__qualname__, call.__doc__ = function.__name__, function.__qualname__, function.__doc__
    call.__wrapped__ = function  # pyright: ignore[reportFunctionMemberAccess]
    return call


def operations(function: Callable[..., Any], *arguments: Any) -> int:
    """How many operations there are to compile in `function(*arguments)`: it is traced, and nothing is computed."""
    return _operations(jax.make_jaxpr(function)(*arguments))


def _operations(jaxpr: ClosedJaxpr | Jaxpr) -> int:
    return sum(1 + sum(map(_operations, jaxprs_in(equation.params))) for equation in jaxpr.eqns)


def jaxprs_in(params: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    """The functions that are parameters of an operation: bodies of loops, branches, what is jitted."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (ClosedJaxpr, Jaxpr)):
                yield item


def as_arrays(tree: T) -> T:
    """Python numbers become arrays, weakly typed: a new value is then no reason to compile again."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, _with_arrays(leaves))


def _with_arrays(leaves: list[Any]) -> list[Any]:
    shared, double = jax.sharding.get_abstract_mesh().empty, bool(jax.config.read("jax_enable_x64"))
    return [_as_array(leaf, shared, double) if isinstance(leaf, float) else leaf for leaf in leaves]


def _as_array(number: float, shared: bool, double: bool) -> Array:
    if type(number) is not float or not shared:
        return jnp.asarray(number)  # NumPy's are floats too, and keep their type; under a mesh an array is of that mesh
    return _weak_array(number.hex(), double)


@functools.lru_cache(maxsize=4096)
def _weak_array(number: str, double: bool) -> Array:
    """Made once: a solve meets the same few numbers at every call, and to make an array takes as long as a short solve.

    They are shared between calls, and not to be donated.
    """
    with jax.ensure_compile_time_eval():
        return jax.device_put(float.fromhex(number))  # which compiles nothing, where jnp.asarray would


_ARRAYS = (jax.Array, np.ndarray, np.generic)
_ARRAY = object()
