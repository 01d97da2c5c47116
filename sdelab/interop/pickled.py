"""Pickles read without executing them: see `sdelab.interop.inert` for what their names come to mean."""

import contextlib
import io
import pickle
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from reprlib import repr as brief
from typing import IO, Any, TypeAlias, cast

from sdelab.interop.inert import UnsafePickle

Find: TypeAlias = Callable[[str, str], Any]
"""`(module, name) -> stand-in`, or None for a global that is not accepted."""


class UnreadableCheckpoint(ValueError):
    """The file is torn, or not of the format that it was taken for."""


class InertUnpickler(pickle.Unpickler):
    """An unpickler that builds arrays, containers, numbers, strings and inert records.

    `find` says what a global stands for; `load_storage(*persistent_id)` resolves what torch keeps outside the pickle.
    Errors: `UnsafePickle`, which names the global that the pickle asks for.
    """

    def __init__(self, file: io.BufferedIOBase, find: Find, load_storage: Callable[..., Any] | None):
        super().__init__(file)
        self._find = find
        self._load_storage = load_storage

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        stand_in = self._find(module_name, global_name)
        if stand_in is None:
            raise UnsafePickle(
                f"the pickle asks for {module_name}.{global_name}, which is neither an array nor a container: refused, "
                "and nothing was executed. Accepted: tensors, numpy arrays, dicts, lists, tuples, sets, numbers, strings "
                "and the networks of EDM's pickles; of other models, save a state_dict."
            )
        return stand_in

    def persistent_load(self, pid: Any, /) -> Any:
        if self._load_storage is None or not isinstance(pid, tuple):
            raise UnsafePickle(f"the pickle refers to {brief(pid)}, outside of it: refused.")
        return self._load_storage(*pid)


def load_inert(file: io.BufferedIOBase, find: Find, load_storage: Callable[..., Any] | None = None) -> Any:
    """The object of the pickle that starts where `file` stands; `file` then stands behind it."""
    start = file.tell()
    check_opcodes(file)
    file.seek(start)
    return InertUnpickler(file, find, load_storage).load()


def check_opcodes(file: io.BufferedIOBase) -> None:
    """Walks over a pickle, executing nothing: lengths lie within the file, and the memo is filled in order.

    The unpickler allocates what a length or an index of the memo asks for before it looks at what is there.
    Errors: `UnsafePickle`; a `ValueError` of `pickletools` on what is no pickle.
    """
    start = file.tell()
    size = file.seek(0, 2)
    file.seek(start)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast("IO[bytes]", file))):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > count:
            raise UnsafePickle(f"the pickle stores an object at {argument} after {count} operations: refused.")
        if opcode.name == "FRAME" and (argument or 0) > size:
            raise ValueError(f"the pickle declares a frame of {argument} bytes in a file of {size}.")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors of what is read within the context carry the file's name, and are of two kinds."""
    try:
        yield
    except UnsafePickle as error:
        raise UnsafePickle(f"{path}: {error}") from error
    except UnreadableCheckpoint as error:
        raise UnreadableCheckpoint(f"{path}: {error}") from error
    except OSError:
        raise
    except Exception as error:  # a torn file can raise anything
        raise UnreadableCheckpoint(f"{path} is torn, or not of this format: {error or type(error).__name__}") from error
