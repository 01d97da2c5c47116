"""What the globals of torch's, numpy's and EDM's pickles stand for; any other is refused."""

from collections.abc import Mapping
from reprlib import repr as brief
from typing import Any

import jax.numpy as jnp
import numpy as np

from sdelab.interop.inert import (
    ElementType,
    Function,
    InertMapping,
    InertModule,
    Label,
    NumpyArray,
    NumpyType,
    Storage,
    Tensor,
    UnsafePickle,
)

DTYPES: dict[str, np.dtype[Any]] = {
    "bfloat16": jnp.dtype(jnp.bfloat16),
    "bool": np.dtype(np.bool_),
    "complex128": np.dtype(np.complex128),
    "complex64": np.dtype(np.complex64),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "int8": np.dtype(np.int8),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "uint8": np.dtype(np.uint8),
}
"""By torch's names."""
STORAGES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}
MODULES = "torch.nn.modules."


def find_global(module: str, name: str) -> Any:
    """The stand-in; None if there is none. Classes of `torch.nn.modules` are all read as records of their attributes."""
    if module.startswith(MODULES):
        return type(name, (InertModule,), {"class_name": name})
    return GLOBALS.get((module, name))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, dtype: np.dtype[Any] | None = None) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(size, (tuple, list)) or not isinstance(stride, (tuple, list)):
        raise UnsafePickle("the pickle makes a tensor of something else than a storage: refused.")
    return Tensor(storage, storage.dtype if dtype is None else dtype, offset, tuple(size), tuple(stride))


def _tensor_v2(storage: Any, offset: Any, size: Any, stride: Any, *grad_hooks_metadata: Any) -> Tensor:
    return _tensor(storage, offset, size, stride)


def _tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any) -> Any:
    if not isinstance(dtype, ElementType):
        raise UnsafePickle("the pickle makes a tensor of unknown dtype: refused.")
    return _tensor(storage, offset, size, stride, dtype.dtype)


def _parameter(data: Any, *grad_hooks_state: Any) -> Any:
    return data


def _persistent_module(meta: Any) -> InertModule:
    """EDM's `persistence` stores the source of the class beside its attributes, to execute it: only the name is kept."""
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise UnsafePickle("the pickle makes a persistent object of something else than its description: refused.")
    module = InertModule()
    module.class_name = str(meta["class_name"])
    module.__setstate__(meta["state"])
    return module


def _instance(kind: Any, *base_and_state: Any) -> InertModule:
    if not (isinstance(kind, type) and issubclass(kind, InertModule)):
        raise UnsafePickle("the pickle makes an instance of something else than a module: refused.")
    return kind()


def _items(*arguments: Any) -> InertMapping:
    return InertMapping(*arguments)


def _set(*arguments: Any) -> set[Any]:
    return set(*arguments)


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafePickle(f"the pickle encodes {type(text).__name__} as {brief(encoding)}: refused.")
    return text.encode("latin1")


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    return tuple(sizes)


def _device(*kind_and_index: Any) -> str:
    return ":".join(str(part) for part in kind_and_index if isinstance(part, (str, int)))


def _numpy_type(code: Any, *align_copy: Any) -> NumpyType:
    return NumpyType(code if isinstance(code, str) else "O")


def _numpy_array(*kind_shape_code: Any) -> NumpyArray:
    return NumpyArray()


def _numpy_scalar(element: Any, raw: Any = b"") -> Any:
    if not isinstance(element, NumpyType) or not isinstance(raw, bytes):
        raise UnsafePickle("the pickle makes a numpy scalar of something else than bytes: refused.")
    return np.frombuffer(raw, element.dtype, count=1)[0].item()


def _numpy_buffer(raw: Any, element: Any, shape: Any, order: Any) -> NumpyArray:
    array = NumpyArray()
    array.__setstate__((1, shape, element, order == "F", raw))
    return array


NUMPY = {
    f"{package}.{module}": functions
    for package in ("numpy.core", "numpy._core")  # before and since numpy 2
    for module, functions in {
        "multiarray": {"_reconstruct": Function(_numpy_array), "scalar": Function(_numpy_scalar)},
        "numeric": {"_frombuffer": Function(_numpy_buffer)},
    }.items()
}
BY_MODULE: Mapping[str, Mapping[str, Any]] = NUMPY | {
    "__builtin__": {"set": Function(_set), "object": Label("object")},
    "_codecs": {"encode": Function(_encoded)},
    "builtins": {"set": Function(_set), "object": Label("object")},
    "collections": {"OrderedDict": InertMapping},
    "copy_reg": {"_reconstructor": Function(_instance)},
    "copyreg": {"_reconstructor": Function(_instance)},
    "dnnlib.util": {"EasyDict": InertMapping},
    "numpy": {"dtype": Function(_numpy_type), "ndarray": Label("numpy.ndarray")},
    "torch": {
        "Size": Function(_size),
        "device": Function(_device),
        "strided": Label("torch.strided"),
        **{name: ElementType(dtype) for name, dtype in DTYPES.items()},
        **{name: ElementType(DTYPES[dtype]) for name, dtype in STORAGES.items()},
    },
    "torch._utils": {
        "_rebuild_parameter": Function(_parameter),
        "_rebuild_parameter_with_state": Function(_parameter),
        "_rebuild_tensor": Function(_tensor_v2),
        "_rebuild_tensor_v2": Function(_tensor_v2),
        "_rebuild_tensor_v3": Function(_tensor_v3),
    },
    "torch.cuda": {name: ElementType(DTYPES[dtype]) for name, dtype in STORAGES.items()},
    "torch.nn.parameter": {"Parameter": Label("torch.nn.Parameter")},
    "torch.storage": {"UntypedStorage": ElementType(DTYPES["uint8"])},
    "torch_utils.persistence": {"_reconstruct_persistent_obj": Function(_persistent_module)},
}
GLOBALS = {(module, name): value for module, names in BY_MODULE.items() for name, value in names.items()}
