from pathlib import Path

import numpy as np

from sdelab.data.dataset import Dataset
from sdelab.data.directory import find_data
from sdelab.data.idx import read_idx
from sdelab.data.scaling import GreyLevels


def load_mnist(low: float | int = -1.0, high: float | int = 1.0) -> Dataset:
    """MNIST: 60 000 handwritten digits of 28 x 28 to train on, the 10 000 test images held out; 256 grey levels in [low, high].

    Read from the published IDX files under `$SDELAB_DATA/mnist` or `$SDELAB_DATA` (default `~/.cache/sdelab`),
    compressed or not. LeCun et al. (1998), https://doi.org/10.1109/5.726791.
    Errors: `FileNotFoundError` that says which file belongs where; a torn or foreign file.
    """
    return _mnist("mnist", 0, GreyLevels(256, low, high))


def load_mnist32(low: float | int = -1.0, high: float | int = 1.0) -> Dataset:
    """MNIST with a black margin of two pixels, 32 x 32: sides that halve five times."""
    return _mnist("mnist32", 2, GreyLevels(256, low, high))


def _mnist(name: str, margin: int, scaling: GreyLevels) -> Dataset:
    train, train_labels = _part("train", margin)
    held_out, held_out_labels = _part("t10k", margin)
    return Dataset(
        name=name,
        train=train,
        held_out=held_out,
        scaling=scaling,
        train_labels=train_labels,
        held_out_labels=held_out_labels,
        classes=10,
    )


def _part(part: str, margin: int) -> tuple[np.ndarray, np.ndarray]:
    image_path, label_path = (_find(f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
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
    advice = "Put the four published IDX files there (http://yann.lecun.com/exdb/mnist)"
    return find_data("mnist", (f"{name}.gz", name), advice)
