"""Files of `torch.save` and plain pickles that hold tensors, read without torch and without executing anything.

Three layouts: the zip archive of torch >= 1.6 (a pickle, and one entry a storage), the row of pickles and raw storages
before it, and a plain pickle whose storages are embedded files of the second kind (EDM's).
"""

import functools
import io
import struct
import zipfile
from collections.abc import Collection
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from sdelab.interop.inert import ElementType, Function, Storage, UnsafePickle, to_arrays
from sdelab.interop.pickled import Find, load_inert, reading
from sdelab.interop.torch_globals import find_global

MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file in the layout before torch 1.6."""
PROTOCOL = 1001


def read_torch(path: Path | str, *, skip: Collection[str] = ()) -> Any:
    """What a file of `torch.save`, or a pickle, holds: NumPy arrays in place of tensors, `InertModule` in place of modules.

    `skip` names items at the top that are not wanted (the optimiser's); their numbers are not read.

    Errors: `UnsafePickle`, which names what the file asks for; `UnreadableCheckpoint` if the file is torn or of another
    format; `OSError`.
    """
    path = Path(path)
    with path.open("rb") as file, reading(path):
        if file.read(4) == b"PK\x03\x04":
            return _read_zip(file, skip)
        file.seek(0)
        return _read_pickles(file, skip)


def _read_zip(file: io.BufferedIOBase, skip: Collection[str]) -> Any:
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        check_entries(archive, size)
        names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(names) != 1:
            raise ValueError(f"the archive holds {len(names)} files data.pkl; accepted: one.")
        root = names[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("the numbers are big-endian; accepted: little-endian.")

        storages: dict[str, Storage] = {}

        def load_storage(tag: Any, element: Any, key: Any, location: Any, count: Any) -> Storage:
            if key not in storages:
                storages[key] = _storage(tag, element, key, count, functools.partial(archive.read, f"{root}data/{key}"))
            return storages[key]

        tree = load_inert(io.BytesIO(archive.read(names[0])), find_in_pickle, load_storage)
        return to_arrays(_without(tree, skip))


def check_entries(archive: zipfile.ZipFile, size: int) -> None:
    """Torch stores its entries as they are, so that they cannot grow. Errors: an entry that is compressed, or shared."""
    entries = archive.infolist()
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise UnsafePickle(f"the archive's entry {packed[0]} is compressed; torch writes none: refused.")
    if sum(entry.file_size for entry in entries) > size or len(set(archive.namelist())) != len(entries):
        raise UnsafePickle("the archive's entries overlap: refused.")


def _read_pickles(file: io.BufferedIOBase, skip: Collection[str]) -> Any:
    first = load_inert(file, find_in_pickle)
    if first == MAGIC:
        file.seek(0)
        return to_arrays(_without(_read_rows(file, find_in_pickle), skip))
    return to_arrays(_without(first, skip))


def _read_rows(file: io.BufferedIOBase, find: Find) -> Any:
    """Magic number, version, system, object, keys; then each storage as its count of elements and its bytes."""
    magic, version, system = (load_inert(file, find) for _ in range(3))
    if magic != MAGIC or version != PROTOCOL or not isinstance(system, dict) or not system.get("little_endian"):
        raise ValueError(f"magic number {brief(magic)}, version {brief(version)}, system {brief(system)}.")
    storages: dict[str, Storage] = {}
    rows: dict[str, bytes] = {}

    def load_storage(tag: Any, element: Any, key: Any, location: Any, count: Any, view: Any = None) -> Storage:
        if view is not None:
            raise ValueError("a storage is a view of another one (torch before 0.4).")
        if key not in storages:
            storages[key] = _storage(tag, element, key, count, functools.partial(rows.__getitem__, key))
        return storages[key]

    tree = load_inert(file, find, load_storage)
    for key in load_inert(file, find):
        (count,) = struct.unpack("<q", file.read(8))
        if count != storages[key].count:
            raise ValueError(f"storage {key} has {count} elements, where {storages[key].count} were declared.")
        rows[key] = file.read(count * storages[key].dtype.itemsize)
    return tree


def _storage(tag: Any, element: Any, key: Any, count: Any, read: Any) -> Storage:
    kinds = isinstance(element, ElementType) and isinstance(key, str) and isinstance(count, int)
    if tag != "storage" or not kinds or count < 0:
        raise UnsafePickle(f"the pickle refers to {brief(tag)}, {brief(count)}, which is no storage: refused.")
    return Storage(element.dtype, count, read)


def _without(tree: Any, skip: Collection[str]) -> Any:
    return {key: leaf for key, leaf in tree.items() if key not in skip} if isinstance(tree, dict) else tree


def _embedded_storage(raw: Any) -> Storage:
    """`torch.storage._load_from_bytes`: a storage within a plain pickle. One within another is refused."""
    if not isinstance(raw, bytes):
        raise UnsafePickle(f"the pickle reads a storage from {type(raw).__name__}: refused.")
    storage = _read_rows(io.BytesIO(raw), find_global)
    if not isinstance(storage, Storage):
        raise UnsafePickle(f"the pickle reads {type(storage).__name__} in place of a storage: refused.")
    return storage


EMBEDDED = Function(_embedded_storage)


def find_in_pickle(module: str, name: str) -> Any:
    """As `find_global`, and storages that are embedded."""
    return EMBEDDED if (module, name) == ("torch.storage", "_load_from_bytes") else find_global(module, name)
