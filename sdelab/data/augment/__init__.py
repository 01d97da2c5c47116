"""Random transformations of training images, in JAX, as a part of the train step."""

from sdelab.data.augment.base import AbstractAugmentation as AbstractAugmentation
from sdelab.data.augment.edm import EDMAugmentation as EDMAugmentation
from sdelab.data.augment.flip import HorizontalFlip as HorizontalFlip
from sdelab.data.augment.none import NoAugmentation as NoAugmentation
from sdelab.data.augment.warp import warp as warp
