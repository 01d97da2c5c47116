"""The two published formats of CIFAR-10's batches: https://www.cs.toronto.edu/~kriz/cifar.html."""

import io
import pickle
from typing import Any

import numpy as np

_PIXELS = 3 * 32 * 32


def read_binary_batch(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images `(n, 32, 32, 3)` uint8 and labels `(n,)` int32 of records of one byte label and 3 072 bytes of pixels.

    Errors: a torn file; a label above 9. `name` is for messages.
    """
    if not content or len(content) % (1 + _PIXELS):
        raise ValueError(f"{name} is torn: {len(content)} bytes are no whole number of records of {1 + _PIXELS}.")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    return _checked(records[:, 1:], records[:, 0], name)


def read_python_batch(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """As `read_binary_batch`, of a pickled dict with `data`, `(n, 3072)` uint8, and `labels`.

    A pickle can run any code: this reads arrays, and refuses every other object.
    Errors: a torn or foreign file.
    """
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"{name} is no batch of CIFAR-10: {error}.") from error
    return _checked(data, labels, name)


def _checked(data: np.ndarray, labels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    if data.dtype != np.uint8 or data.shape[1:] != (_PIXELS,) or labels.shape != data.shape[:1]:
        raise ValueError(
            f"{name} holds data {data.dtype} {data.shape} with labels {labels.shape}; accepted: uint8 (n, {_PIXELS}) with "
            "labels (n,)."
        )
    if labels.size and not 0 <= labels.min() <= labels.max() <= 9:
        raise ValueError(f"{name} holds labels in [{labels.min()}, {labels.max()}]; accepted: 0 to 9.")
    images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # stored plane by plane
    return np.ascontiguousarray(images), labels.astype(np.int32)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # NumPy before and after it renamed its core; `encode` is how Python 3 pickles bytes for Python 2
        accepted = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _encode,
        }
        for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
            accepted[core, "_reconstruct"] = _reconstruct
        if (module, name) not in accepted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays are accepted")
        return accepted[module, name]


def _encode(text: str, encoding: bytes | str) -> bytes:
    return text.encode("latin1")


def _reconstruct(kind: type, shape: tuple[int, ...], typecode: bytes) -> np.ndarray:
    return np.empty(shape, np.int8)  # shape, dtype and values follow in the pickle
