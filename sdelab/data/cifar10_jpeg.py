from sdelab.data.dataset import Dataset
from sdelab.data.directory import find_data
from sdelab.data.images import Exact, load_images
from sdelab.data.scaling import GreyLevels


def load_cifar10_jpeg(low: float | int = -1.0, high: float | int = 1.0) -> Dataset:
    """CIFAR-10 (JPEG): the images of CIFAR-10 after a lossy compression, in class folders, sorted by class.

    A number obtained with it is one of CIFAR-10 (JPEG), not of CIFAR-10. Labels are those of CIFAR-10. Read from
    `cifar10-jpeg`, a folder or an archive, under `$SDELAB_DATA/cifar10_jpeg` or `$SDELAB_DATA`, with
    `train/<class>/*.jpg` and `test/<class>/*.jpg`.
    Errors: `FileNotFoundError` that says what to put where; an image that cannot be decoded, or is not 32 x 32.
    """
    candidates = ("cifar10-jpeg", "cifar10-jpeg.zip", "cifar10-jpeg.tar", "cifar10-jpeg.tar.xz")
    advice = "Put the folder or the archive with train/<class>/*.jpg and test/<class>/*.jpg there"
    path = find_data("cifar10_jpeg", candidates, advice)
    return load_images("cifar10_jpeg", path, Exact(32), scaling=GreyLevels(256, low, high))
