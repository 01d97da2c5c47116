import os
from pathlib import Path

import numpy as np

from sdelab.data.dataset import Dataset
from sdelab.data.idx import read_idx
from sdelab.data.scaling import GreyLevels


def load_mnist() -> Dataset:
    """MNIST: 60 000 handwritten digits of 28 x 28 to train on, the 10 000 test images held out; 256 grey levels.

    Read from the published IDX files under `$SDELAB_DATA/mnist` or `$SDELAB_DATA` (default `~/.cache/sdelab`),
    compressed or not. LeCun et al. (1998), https://doi.org/10.1109/5.726791.
    Errors: `FileNotFoundError` that says which file belongs where; a torn or foreign file.
    """
    return _mnist("mnist", 0)


def load_mnist32() -> Dataset:
    """MNIST with a black margin of two pixels, 32 x 32: sides that halve five times."""
    return _mnist("mnist32", 2)


def data_directory() -> Path:
    """Where data sets are looked for: the environment variable `SDELAB_DATA`, or `~/.cache/sdelab`."""
    return Path(os.environ.get("SDELAB_DATA") or "~/.cache/sdelab").expanduser()


def _mnist(name: str, margin: int) -> Dataset:
    train, train_labels = _part("train", margin)
    held_out, held_out_labels = _part("t10k", margin)
    return Dataset(
        name=name,
        train=train,
        held_out=held_out,
        scaling=GreyLevels(256),
        train_labels=train_labels,
        held_out_labels=held_out_labels,
        classes=10,
    )


def _part(part: str, margin: int) -> tuple[np.ndarray, np.ndarray]:
    image_path, label_path = _find(f"{part}-images-idx3-ubyte"), _find(f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.dtype != np.uint8 or images.ndim != 3:
        raise ValueError(
            f"{image_path} holds {images.dtype} of shape {images.shape}; accepted: uint8 images (n, h, w)."
        )
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{label_path} holds {labels.dtype} of shape {labels.shape}; accepted: uint8, one for each of the "
            f"{len(images)} images of {image_path.name}."
        )
    margins = ((0, 0), (margin, margin), (margin, margin))
    return np.pad(images, margins)[..., None], labels.astype(np.int32)


def _find(name: str) -> Path:
    root = data_directory()
    for folder in (root / "mnist", root):
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"MNIST needs the file {name}.gz (or {name}) in {root / 'mnist'}. Put the four published IDX files there "
        "(http://yann.lecun.com/exdb/mnist), or set SDELAB_DATA to the folder that has them."
    )
