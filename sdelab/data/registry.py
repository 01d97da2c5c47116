"""Data sets by name, for configs and the command line. Names stop here: a loader below takes objects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdelab._checks import unknown_name
from sdelab.data.arrays import load_arrays
from sdelab.data.cifar10 import load_cifar10
from sdelab.data.cifar10_jpeg import load_cifar10_jpeg
from sdelab.data.dataset import Dataset
from sdelab.data.digits import load_digits
from sdelab.data.directory import resolve_data
from sdelab.data.hugging_face import load_hugging_face
from sdelab.data.images import AbstractFit, CenterCrop, CenterCropADM, Exact, Stretch, load_images
from sdelab.data.mnist import load_mnist, load_mnist32
from sdelab.data.scaling import GreyLevels
from sdelab.data.tfds import load_tfds
from sdelab.data.toy import load_checkerboard, load_eight_gaussians, load_rings, load_spiral, load_two_moons

FITS: dict[str, type[AbstractFit]] = {
    "center_crop": CenterCrop,
    "center_crop_adm": CenterCropADM,
    "exact": Exact,
    "stretch": Stretch,
}


def arrays_by_name(
    path: str,
    held_out: int = 1000,
    levels: int = 256,
    low: float | int = -1.0,
    high: float | int = 1.0,
) -> Dataset:
    """`load_arrays` of a path that may start from `$SDELAB_DATA`, named after the file."""
    place = resolve_data(path)
    return load_arrays(_stem(place), place, held_out=held_out, levels=levels, low=low, high=high)


def images_by_name(
    path: str,
    size: int,
    fit: str = "exact",
    channels: int = 3,
    held_out: int = 1000,
    low: float | int = -1.0,
    high: float | int = 1.0,
    memory: float | int = 2.0,
) -> Dataset:
    """`load_images` of a path that may start from `$SDELAB_DATA`, named after it, with a `fit` by its name in `FITS`."""
    place = resolve_data(path)
    return load_images(
        _stem(place),
        place,
        _fit(fit, size),
        channels=channels,
        held_out=held_out,
        scaling=GreyLevels(256, low, high),
        memory=memory,
    )


def records_by_name(load: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """`load_tfds` or `load_hugging_face` in the words of a config."""

    def load_by_name(
        dataset: str,
        size: int,
        fit: str = "exact",
        channels: int = 3,
        train: str = "train",
        held_out: str = "test",
        image: str = "image",
        label: str = "label",
        directory: str = "",
        low: float | int = -1.0,
        high: float | int = 1.0,
        memory: float | int = 2.0,
    ) -> Dataset:
        return load(
            dataset,
            _fit(fit, size),
            channels=channels,
            train=train,
            held_out=held_out,
            image=image,
            label=label,
            directory=directory or None,
            scaling=GreyLevels(256, low, high),
            memory=memory,
        )

    return load_by_name


LOADERS: dict[str, Callable[..., Dataset]] = {
    "arrays": arrays_by_name,
    "checkerboard": load_checkerboard,
    "cifar10": load_cifar10,
    "cifar10_jpeg": load_cifar10_jpeg,
    "digits": load_digits,
    "eight_gaussians": load_eight_gaussians,
    "hugging_face": records_by_name(load_hugging_face),
    "images": images_by_name,
    "mnist": load_mnist,
    "mnist32": load_mnist32,
    "rings": load_rings,
    "spiral": load_spiral,
    "tfds": records_by_name(load_tfds),
    "two_moons": load_two_moons,
}


def load_dataset(name: str, **settings: Any) -> Dataset:
    """The data set of that name. Errors: an unknown name; files that are missing or torn."""
    if name not in LOADERS:
        raise unknown_name("data set", name, LOADERS)
    return LOADERS[name](**settings)


def _fit(name: str, size: int) -> AbstractFit:
    if name not in FITS:
        raise unknown_name("fit", name, FITS)
    return FITS[name](size)


def _stem(path: Path) -> str:
    """The name of a folder or a file, without endings."""
    return path.resolve().name.split(".")[0]
