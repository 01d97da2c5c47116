"""Two-dimensional sets: 20 000 points to train on and 5 000 held out, fixed, of about unit scale in each coordinate."""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from sdelab.data.dataset import Dataset
from sdelab.data.scaling import Unscaled

EIGHT_GAUSSIANS_STD = 0.1
EIGHT_GAUSSIANS_MEANS = math.sqrt(2.0) * np.stack(
    [np.cos(np.arange(8) * math.pi / 4), np.sin(np.arange(8) * math.pi / 4)], axis=1
)
"""Means `(8, 2)` of the mixture that `load_eight_gaussians` draws from."""

_TRAIN, _HELD_OUT = 20_000, 5_000

Draw: TypeAlias = Callable[[np.random.RandomState, int], tuple[np.ndarray, np.ndarray]]
"""`(random, n)` to points `(n, 2)` and labels `(n,)`."""


def load_eight_gaussians() -> Dataset:
    r"""Eight equal Gaussians of standard deviation 0.1 on a circle of radius $\sqrt 2$; the label is the component.

    The density is known: the mixture of `EIGHT_GAUSSIANS_MEANS` and `EIGHT_GAUSSIANS_STD` with equal weights,
    so that an exact score is at hand (`sdelab.exact.GaussianMixture`).
    """

    def draw(random, n):
        label = random.randint(0, 8, n)
        return EIGHT_GAUSSIANS_MEANS[label] + EIGHT_GAUSSIANS_STD * random.normal(size=(n, 2)), label

    return _dataset("eight_gaussians", draw, classes=8)


def load_two_moons() -> Dataset:
    """Two interleaved half circles of radius 1.2 with noise of standard deviation 0.1; the label is the moon."""

    def draw(random, n):
        label, angle = random.randint(0, 2, n), math.pi * random.uniform(size=n)
        upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], axis=1)
        points = np.where(label[:, None] == 0, upper, -upper)
        return 1.2 * points + 0.1 * random.normal(size=(n, 2)), label

    return _dataset("two_moons", draw, classes=2)


def load_checkerboard() -> Dataset:
    """Uniform on the eight dark squares of a 4 x 4 board on [-1.8, 1.8]²; the density there is 2 / 3.6²."""

    def draw(random, n):
        column, pair = random.randint(0, 4, n), random.randint(0, 2, n)
        corner = np.stack([column, 2 * pair + column % 2], axis=1)
        return 0.9 * (corner + random.uniform(size=(n, 2)) - 2.0), np.zeros(n)

    return _dataset("checkerboard", draw)


def load_rings() -> Dataset:
    """Three circles of radius 0.6, 1.2 and 1.8 with noise of standard deviation 0.06; the label is the circle."""

    def draw(random, n):
        label, angle = random.randint(0, 3, n), 2 * math.pi * random.uniform(size=n)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return 0.6 * (label[:, None] + 1) * circle + 0.06 * random.normal(size=(n, 2)), label

    return _dataset("rings", draw, classes=3)


def load_spiral() -> Dataset:
    """Two arms of a spiral of one and a half turns with noise of standard deviation 0.06; the label is the arm."""

    def draw(random, n):
        label = random.randint(0, 2, n)
        angle = 3 * math.pi * np.sqrt(random.uniform(size=n))  # even along the arm
        arm = (angle / (1.4 * math.pi))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return np.where(label[:, None] == 0, arm, -arm) + 0.06 * random.normal(size=(n, 2)), label

    return _dataset("spiral", draw, classes=2)


def _dataset(name: str, draw: Draw, classes: int = 0) -> Dataset:
    random = np.random.RandomState(0)  # the one stream that NumPy has frozen
    points, labels = draw(random, _TRAIN + _HELD_OUT)
    points, labels = points.astype(np.float32), labels.astype(np.int32)
    return Dataset(
        name=name,
        train=points[:_TRAIN],
        held_out=points[_TRAIN:],
        scaling=Unscaled(),
        train_labels=labels[:_TRAIN] if classes else None,
        held_out_labels=labels[_TRAIN:] if classes else None,
        classes=classes,
    )
