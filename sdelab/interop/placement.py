"""Arrays under published names, put into the parameters of our networks: all of them, each in one place."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np

Layout: TypeAlias = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a published array belongs: the path of a parameter, and what turns the array into it."""

    path: tuple[str, ...]
    layout: Layout


def place(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, Any], locate: Callable[[str], Place | None]) -> Any:
    """Parameters of the structure, shapes and dtypes of `shapes`, a nested dict with names as keys.

    `locate(name)` says where the array of a name belongs, None if it belongs nowhere.

    Errors: one `ValueError` that lists every array without a place, every parameter without an array, and every array
    of another shape than its parameter.
    """
    wanted = {tuple(entry.key for entry in path): leaf for path, leaf in jax.tree.leaves_with_path(shapes)}
    placed, homeless, misshapen = {}, [], []
    for name, array in arrays.items():
        where = locate(name)
        if where is None or where.path not in wanted or where.path in placed:
            homeless.append(name)
            continue
        value, parameter = where.layout(np.asarray(array)), wanted[where.path]
        if value.shape != parameter.shape:
            misshapen.append(f"{name} as {value.shape}, where {'/'.join(where.path)} has {parameter.shape}")
        placed[where.path] = value.astype(parameter.dtype)
    missing = ["/".join(path) for path in wanted if path not in placed]
    complaints = {"arrays without a place": homeless, "parameters without an array": missing, "other shapes": misshapen}
    if any(complaints.values()):
        raise ValueError(
            "the published parameters do not fit the network: "
            + "; ".join(f"{what}: {', '.join(names)}" for what, names in complaints.items() if names)
            + "."
        )
    return _nested(placed)


def as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def linear(weight: np.ndarray) -> np.ndarray:
    """PyTorch's `(out, in)` and convolutions by one pixel, `(out, in, 1, 1)`, to `(in, out)`."""
    return weight.reshape(weight.shape[0], -1).T


def convolution(weight: np.ndarray) -> np.ndarray:
    """PyTorch's `(out, in, *size)` to `(*size, in, out)`."""
    return np.moveaxis(weight, (1, 0), (-2, -1))


def _nested(leaves: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = leaf
    return tree
