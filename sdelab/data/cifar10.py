import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sdelab.data.cifar10_batches import read_binary_batch, read_python_batch
from sdelab.data.dataset import Dataset
from sdelab.data.directory import find_data
from sdelab.data.files import AbstractFiles, open_files
from sdelab.data.scaling import GreyLevels

MD5 = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""Published checksums: of the archives at https://www.cs.toronto.edu/~kriz/cifar.html, and of the unpacked Python files."""

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Reader = Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]
_READERS: dict[str, Reader] = {
    "cifar-10-python.tar.gz": read_python_batch,
    "cifar-10-batches-py": read_python_batch,
    "cifar-10-binary.tar.gz": read_binary_batch,
    "cifar-10-batches-bin": read_binary_batch,
}


def load_cifar10(low: float | int = -1.0, high: float | int = 1.0) -> Dataset:
    """CIFAR-10: 50 000 colour images of 32 x 32 to train on, the 10 000 test images held out; 256 levels in [low, high].

    Read from a published archive, the Python or the binary version, packed or unpacked, under `$SDELAB_DATA/cifar10`
    or `$SDELAB_DATA`: the arrays are the same. Krizhevsky (2009), https://www.cs.toronto.edu/~kriz/cifar.html.
    Errors: `FileNotFoundError` that says what to put where; a file whose checksum is not the published one.
    """
    advice = "Put a published archive there (https://www.cs.toronto.edu/~kriz/cifar.html)"
    path = find_data("cifar10", tuple(_READERS), advice)
    if path.is_file():
        check_md5(path.name, path.read_bytes(), path)
    train, train_labels, held_out, held_out_labels = read_batches(open_files(path), _READERS[path.name])
    return Dataset(
        name="cifar10",
        train=train,
        held_out=held_out,
        scaling=GreyLevels(256, low, high),
        train_labels=train_labels,
        held_out_labels=held_out_labels,
        classes=len(CLASSES),
    )


def read_batches(files: AbstractFiles, reader: Reader) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images `(n, 32, 32, 3)` and labels `(n,)`, then those of the test set, in the published order.

    Errors: a batch that is missing, torn, or of another checksum than the published.
    """
    ending = ".bin" if reader is read_binary_batch else ""
    by_name = {name.split("/")[-1]: name for name in files.names}
    batches = []
    for stem in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        name = stem + ending
        if name not in by_name:
            raise FileNotFoundError(f"{files.path} lacks {name}. Copy or download it again.")
        content = files.read(by_name[name])
        check_md5(name, content, files.path)
        batches.append(reader(content, f"{files.path}: {name}"))
    images, labels = (np.concatenate(parts) for parts in zip(*batches[:5], strict=True))
    return images, labels, *batches[5]


def check_md5(name: str, content: bytes, path: Path) -> None:
    """Errors: a content whose checksum is not the published one of `name`, where there is one."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != MD5.get(name, found):
        raise ValueError(
            f"{path}: {name} has the MD5 checksum {found}; the published one is {MD5[name]}. Copy or download it again."
        )
