import numpy as np

from sdelab.data.dataset import Dataset
from sdelab.data.permutation import permutation
from sdelab.data.scaling import GreyLevels

_HELD_OUT = 297


def load_digits() -> Dataset:
    """scikit-learn's handwritten digits: 1 797 images of 8 x 8 with 17 grey levels, 10 classes.

    1 500 to train on and 297 held out, by a fixed split in which every class has its share.
    Alpaydin and Kaynak (1998), https://doi.org/10.24432/C50P49.
    """
    from sklearn.datasets import load_digits as load  # takes half a second, and only this data set needs it

    images, labels = (np.asarray(array) for array in load(return_X_y=True))
    images, labels = images.reshape(-1, 8, 8, 1).astype(np.uint8), labels.astype(np.int32)
    held_out = stratified_mask(labels, _HELD_OUT)
    return Dataset(
        name="digits",
        train=images[~held_out],
        held_out=images[held_out],
        scaling=GreyLevels(17),
        train_labels=labels[~held_out],
        held_out_labels=labels[held_out],
        classes=10,
    )


def stratified_mask(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Picks exactly `count` of the labelled samples, from every class its share to within one; `(n,)` bool."""
    order = permutation(seed, 0, len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    quota = np.arange(len(labels) + 1) * count // len(labels)  # rises by one at `count` evenly spaced places
    mask = np.zeros(len(labels), bool)
    mask[by_class] = np.diff(quota) == 1
    return mask
