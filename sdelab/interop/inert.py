"""What a pickle of weights is read into: values that hold numbers and names, and can do nothing.

A pickle is a program. It names functions and classes (GLOBAL), calls them (REDUCE, NEWOBJ) and sets the state of what
came out (BUILD). Here every name it may use means one of the classes below, so that whatever it says, it builds these
values, Python's containers, numbers and strings. BUILD looks for `__setstate__` before it touches attributes: every class
has one, which refuses, or takes the one kind of state that it knows. A pickle can also build values whose whole text would
fill the memory, out of references to one another: messages quote them in brief.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from reprlib import repr as brief
from typing import Any

import numpy as np


class UnsafePickle(ValueError):
    """A pickle asks for something that is neither an array nor a container. Nothing of it was executed."""


class Inert:
    """A value that a pickle can hold, and do nothing with."""

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickle(f"the pickle sets the state of {type(self).__name__}, which has none: refused.")


class InertMapping(dict[Any, Any], Inert):
    """Stands for the subclasses of `dict`; attributes beside the items are dropped (torch's `_metadata`)."""

    def __setstate__(self, state: Any) -> None:
        pass


class Function(Inert):
    """Stands for a function: calls ours in its place, whose arguments are checked there."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


@dataclasses.dataclass(frozen=True, eq=False)
class Label(Inert):
    """Stands for a class or constant that is only named (`numpy.ndarray`, `torch.strided`)."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class ElementType(Inert):
    """Stands for the class of a storage, or for a dtype of torch."""

    dtype: np.dtype[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Storage(Inert):
    """A row of `count` numbers in the file; `read` returns their bytes."""

    dtype: np.dtype[Any]
    count: int
    read: Callable[[], bytes | memoryview]

    def as_type(self, dtype: np.dtype[Any]) -> np.ndarray:
        """The numbers, read-only, as elements of `dtype`. Errors: another number of bytes than was declared."""
        return np.frombuffer(self._raw, dtype)

    @functools.cached_property
    def _raw(self) -> bytes | memoryview:
        """Read once: a storage may have many views."""
        raw = self.read()
        if len(raw) != self.count * self.dtype.itemsize:
            raise ValueError(f"a storage of {self.count} x {self.dtype} holds {len(raw)} bytes.")
        return raw


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor(Inert):
    """A strided view of a storage, in elements of `dtype`."""

    storage: Storage
    dtype: np.dtype[Any]
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> np.ndarray:
        """A read-only view; nothing is copied. Errors: a view that leaves the storage."""
        numbers = self.storage.as_type(self.dtype)
        wholes = (self.offset, *self.size, *self.stride)
        if not all(isinstance(whole, int) and whole >= 0 for whole in wholes) or len(self.size) != len(self.stride):
            raise ValueError(
                f"a tensor of size {brief(self.size)}, stride {brief(self.stride)} and offset {brief(self.offset)}."
            )
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if math.prod(self.size) and last >= len(numbers):
            raise ValueError(f"a tensor of size {self.size} reaches element {last} of a storage of {len(numbers)}.")
        if not math.prod(self.size):
            return np.zeros(self.size, self.dtype)
        steps = [step * self.dtype.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, steps, writeable=False)


class NumpyType(Inert):
    """Stands for `numpy.dtype`: numbers only."""

    def __init__(self, code: str):
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "biufc":
            raise UnsafePickle(f"the pickle holds an array of dtype {code!r}; accepted: numbers.")

    def __setstate__(self, state: Any) -> None:
        version, order, *rest = state
        if version != 3 or any(field not in (None, -1, 0) for field in rest):
            raise UnsafePickle(f"the pickle holds an array with the dtype state {brief(state)}; accepted: numbers.")
        self.dtype = self.dtype.newbyteorder(order)


class NumpyArray(Inert):
    """Stands for `numpy.ndarray`: shape, dtype, order and bytes."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, element, column_major, raw = state
        if not isinstance(element, NumpyType) or not isinstance(raw, (bytes, bytearray, str)):
            raise UnsafePickle("the pickle holds a numpy array that is not made of plain numbers: refused.")
        raw = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        self.array = np.frombuffer(raw, element.dtype).reshape(shape, order="F" if column_major else "C")


class InertModule(Inert):
    """Stands for an instance of a class of torch or of a persistent class of EDM: its name and its attributes.

    Fields: `class_name`; `state`, the attributes by name, among them those of `torch.nn.Module` (`_parameters`,
    `_buffers`, `_modules`).
    """

    class_name: str = ""
    state: Mapping[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise UnsafePickle(f"the pickle sets the state of {self.class_name} to a {type(state).__name__}: refused.")
        self.state = state


def to_arrays(tree: Any) -> Any:
    """The tree with NumPy arrays in place of tensors. Containers are copied; what is shared stays shared."""
    return _to_arrays(tree, {})


def _to_arrays(tree: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    if id(tree) in seen:
        return seen[id(tree)][1]
    if isinstance(tree, Tensor):
        value: Any = tree.array()
    elif isinstance(tree, NumpyArray):
        value = tree.array
    elif isinstance(tree, Storage):
        value = tree.as_type(tree.dtype)
    elif isinstance(tree, ElementType):
        value = tree.dtype
    elif isinstance(tree, InertModule):
        value = InertModule()
        value.class_name, value.state = tree.class_name, _to_arrays(tree.state, seen)
    elif isinstance(tree, dict):
        value = {key: _to_arrays(leaf, seen) for key, leaf in tree.items()}
    elif isinstance(tree, (list, tuple)):
        value = type(tree)(_to_arrays(leaf, seen) for leaf in tree)
    else:
        return tree
    seen[id(tree)] = (tree, value)  # the tree too: its id must stay taken
    return value
