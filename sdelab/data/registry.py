"""Data sets by name, for configs and the command line."""

from collections.abc import Callable

from sdelab._checks import unknown_name
from sdelab.data.cifar10 import load_cifar10
from sdelab.data.dataset import Dataset
from sdelab.data.digits import load_digits
from sdelab.data.mnist import load_mnist, load_mnist32
from sdelab.data.toy import load_checkerboard, load_eight_gaussians, load_rings, load_spiral, load_two_moons

LOADERS: dict[str, Callable[..., Dataset]] = {
    "checkerboard": load_checkerboard,
    "cifar10": load_cifar10,
    "digits": load_digits,
    "eight_gaussians": load_eight_gaussians,
    "mnist": load_mnist,
    "mnist32": load_mnist32,
    "rings": load_rings,
    "spiral": load_spiral,
    "two_moons": load_two_moons,
}


def load_dataset(name: str) -> Dataset:
    """The data set of that name. Errors: an unknown name; files that are missing or torn."""
    if name not in LOADERS:
        raise unknown_name("data set", name, LOADERS)
    return LOADERS[name]()
