"""What is known of data sets before they are read: a training step can be built, and compiled, where the data are not."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from sdelab._checks import unknown_name
from sdelab.data.dataset import Dataset
from sdelab.data.registry import FITS, LOADERS
from sdelab.data.scaling import AbstractScaling, GreyLevels, Unscaled


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A data set without its samples.

    Fields: `name`; `event_shape`, of one sample; `scaling`; `classes`, 0 for a set without labels; `count` of training
    samples. None stands for what only the files can say.
    """

    name: str
    event_shape: tuple[int, ...]
    scaling: AbstractScaling
    classes: int | None = None
    count: int | None = None


def declaration_of(dataset: Dataset) -> Declaration:
    """What a data set that was read would have been declared as."""
    return Declaration(dataset.name, dataset.event_shape, dataset.scaling, dataset.classes, dataset.count)


def _images(name: str, shape: tuple[int, int, int], count: int, levels: int = 256) -> Callable[..., Declaration]:
    """Images of ten classes."""

    def declare_images(low: float | int = -1.0, high: float | int = 1.0) -> Declaration:
        return Declaration(name, shape, GreyLevels(levels, low, high), 10, count)

    return declare_images


def _points(name: str, classes: int) -> Callable[..., Declaration]:
    """20 000 points in the plane."""
    return lambda: Declaration(name, (2,), Unscaled(), classes, 20_000)


def _fitted(named_by: str) -> Callable[..., Declaration]:
    """Images that are brought to one size, from a place that the setting `named_by` names."""

    def declare_fitted(
        size: int,
        fit: str = "exact",
        channels: int = 3,
        low: float | int = -1.0,
        high: float | int = 1.0,
        **settings: Any,
    ) -> Declaration:
        if fit not in FITS:
            raise unknown_name("fit", fit, FITS)
        side = FITS[fit](size).size
        return Declaration(str(settings[named_by]), (side, side, channels), GreyLevels(256, low, high))

    return declare_fitted


def _arrays(**settings: Any) -> Declaration:
    return declaration_of(LOADERS["arrays"](**settings))


_DECLARE: dict[str, Callable[..., Declaration]] = {
    "arrays": _arrays,
    "checkerboard": _points("checkerboard", 0),
    "cifar10": _images("cifar10", (32, 32, 3), 50_000),
    "cifar10_jpeg": _images("cifar10_jpeg", (32, 32, 3), 50_000),
    "digits": _images("digits", (8, 8, 1), 1_500, levels=17),
    "eight_gaussians": _points("eight_gaussians", 8),
    "hugging_face": _fitted("dataset"),
    "images": _fitted("path"),
    "mnist": _images("mnist", (28, 28, 1), 60_000),
    "mnist32": _images("mnist32", (32, 32, 1), 60_000),
    "rings": _points("rings", 3),
    "spiral": _points("spiral", 2),
    "tfds": _fitted("dataset"),
    "two_moons": _points("two_moons", 2),
}
DECLARATIONS = {name: functools.wraps(load)(_DECLARE[name]) for name, load in LOADERS.items()}
"""By the names of `LOADERS`, with the settings of each; nothing is read, but for arrays, which say nothing before they are."""
