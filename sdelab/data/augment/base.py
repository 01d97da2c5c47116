import abc
from typing import ClassVar, TypeAlias

from jaxtyping import Array, Float

from sdelab._typing import PRNGKeys

Images: TypeAlias = Float[Array, "batch height width channels"]
Labels: TypeAlias = Float[Array, "batch labels"]


class AbstractAugmentation(abc.ABC):
    """A random transformation of images in model units, one key an image.

    It is a part of the train step and not of the loader: its keys come from the step and the global index of the sample,
    like those of time and noise, so that every layout of devices and every resumed run sees the same images; the
    accelerator computes it; and the loader's batches stay a function of the step.
    """

    labels: ClassVar[int]
    """How many numbers say what was done to an image; 0 for a transformation that the model is meant to learn."""

    @abc.abstractmethod
    def __call__(self, keys: PRNGKeys, x: Images) -> tuple[Images, Labels]:
        """Images of the shape and dtype of `x`, and their labels `(batch, labels)` float32.

        The labels of an image that nothing was done to are 0: those are what a network is given to draw samples of the
        data. Each image depends on its own key alone.
        """
