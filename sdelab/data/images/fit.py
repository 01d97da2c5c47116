"""Rules that bring images of any size to one size. A rule is a part of the data: records and fingerprints have it.

An image is cut and resized after it was decoded to its channels, as it is stored: an orientation in EXIF is not applied.
"""

import abc
import dataclasses

from PIL import Image
from PIL.Image import Resampling

from sdelab._checks import check_count


@dataclasses.dataclass(frozen=True)
class AbstractFit(abc.ABC):
    """A rule from an image to one of `size` x `size`. Field: `size` >= 1, in pixels."""

    size: int

    def __post_init__(self):
        check_count(size=self.size)

    @abc.abstractmethod
    def __call__(self, image: Image.Image) -> Image.Image:
        """The image of `size` x `size`. Errors: an image that the rule does not accept."""


@dataclasses.dataclass(frozen=True)
class Exact(AbstractFit):
    """Images that have the size already, pixel by pixel as they are; another size is an error."""

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.size != (self.size, self.size):
            width, height = image.size
            raise ValueError(
                f"the image is {width} x {height}; accepted by fit = 'exact': {self.size} x {self.size}. Another fit "
                "resizes."
            )
        return image


@dataclasses.dataclass(frozen=True)
class Stretch(AbstractFit):
    """The whole image resized with Lanczos' filter, whatever its shape was."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return _resized(image, self.size, self.size, Resampling.LANCZOS)


@dataclasses.dataclass(frozen=True)
class CenterCrop(AbstractFit):
    """The largest square about the centre, resized with Lanczos' filter: `center-crop` of the EDM data sets.

    Karras et al. (2022), https://github.com/NVlabs/edm, `dataset_tool.py`.
    """

    def __call__(self, image: Image.Image) -> Image.Image:
        side = min(image.size)
        return _resized(_center(image, side), self.size, self.size, Resampling.LANCZOS)


@dataclasses.dataclass(frozen=True)
class CenterCropADM(AbstractFit):
    """Halved by box means while the short side is twice the size or more, brought to it bicubically, then cut.

    The rule of the published ImageNet models. Dhariwal and Nichol (2021), https://arxiv.org/abs/2105.05233,
    https://github.com/openai/guided-diffusion, `image_datasets.py`.
    """

    def __call__(self, image: Image.Image) -> Image.Image:
        while min(image.size) >= 2 * self.size:
            image = _resized(image, image.width // 2, image.height // 2, Resampling.BOX)
        scale = self.size / min(image.size)
        image = _resized(image, round(image.width * scale), round(image.height * scale), Resampling.BICUBIC)
        return _center(image, self.size)


def _resized(image: Image.Image, width: int, height: int, filter: Resampling) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), filter)


def _center(image: Image.Image, side: int) -> Image.Image:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
