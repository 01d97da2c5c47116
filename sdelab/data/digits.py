import numpy as np

from sdelab.data.dataset import Dataset
from sdelab.data.scaling import GreyLevels
from sdelab.data.split import stratified_mask

_HELD_OUT = 297


def load_digits(low: float | int = -1.0, high: float | int = 1.0) -> Dataset:
    """scikit-learn's handwritten digits: 1 797 images of 8 x 8 with 17 grey levels in [low, high], 10 classes.

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
        scaling=GreyLevels(17, low, high),
        train_labels=labels[~held_out],
        held_out_labels=labels[held_out],
        classes=10,
    )
