"""What is said of a data set before it is read is what it turns out to be."""

import pytest

from sdelab.data import Declaration, GreyLevels, declaration_of, load_dataset
from sdelab.data.declaration import DECLARATIONS
from sdelab.data.registry import LOADERS


@pytest.mark.parametrize(
    "name", ["checkerboard", "digits", "eight_gaussians", "mnist", "mnist32", "rings", "two_moons"]
)
def test_a_declaration_is_that_of_the_data_set_when_read(name):
    try:
        dataset = load_dataset(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert DECLARATIONS[name]() == declaration_of(dataset)


def test_images_that_are_not_there_have_the_shape_that_their_settings_give_them():
    assert DECLARATIONS.keys() == LOADERS.keys()
    found = DECLARATIONS["images"](path="elsewhere", size=64, fit="center_crop", channels=1, low=0.0)
    assert found == Declaration("elsewhere", (64, 64, 1), GreyLevels(256, 0.0, 1.0))
    assert DECLARATIONS["cifar10"]() == Declaration("cifar10", (32, 32, 3), GreyLevels(256), 10, 50_000)
