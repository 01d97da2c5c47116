"""Progressive growing as residual or skip: the image enters `NCSNpp`, and leaves it, at every resolution.

Each of these keeps a pyramid, an image or a feature map that changes its resolution along with the network.
Karras et al. (2020), figure 7, https://arxiv.org/abs/1912.04958; Song et al. (2021), appendix H,
https://arxiv.org/abs/2011.13456.
"""

import abc

from flax import nnx

from sdelab._checks import unknown_name
from sdelab.nn.features import Features, convolved, joined, map_channels
from sdelab.nn.ncsnpp_blocks import Common, Downsampling, Upsampling

COMBINE = {"cat": lambda image, h: joined([image, h]), "sum": Features.plus}


class AbstractInput(nnx.Module):
    """How the image enters below the first resolution."""

    def widths(self, below: list[int]) -> list[int]:
        """The channels of the features after `step`, from those before."""
        return below

    @abc.abstractmethod
    def step(self, level: int, pyramid: Features, h: Features) -> tuple[Features, Features]:
        """Pyramid and features, both at the next resolution, from the pyramid at that of `level`.

        The pyramid starts as the image.
        """


class NoInput(AbstractInput):
    """It does not."""

    def step(self, level: int, pyramid: Features, h: Features) -> tuple[Features, Features]:
        return pyramid, h


class InputSkip(AbstractInput):
    """The image, made smaller, is mapped linearly to the width of the features and combined with them."""

    def __init__(self, image_channels: int, widths: list[int], combine: str, common: Common, rngs: nnx.Rngs):
        self.combine = combine
        self.smaller = Downsampling(image_channels, image_channels, common, rngs, with_conv=False)
        self.levels = nnx.Dict(
            {f"level{i}": common.linear(image_channels, width, rngs) for i, width in enumerate(widths)}
        )

    def widths(self, below: list[int]) -> list[int]:
        return [2 * width for width in below] if self.combine == "cat" else below

    def step(self, level: int, pyramid: Features, h: Features) -> tuple[Features, Features]:
        pyramid = self.smaller(pyramid)
        return pyramid, COMBINE[self.combine](map_channels(self.levels[f"level{level}"], [pyramid]), h)


class InputResidual(AbstractInput):
    """The pyramid is a sum of features and itself, made smaller by a convolution."""

    def __init__(self, image_channels: int, widths: list[int], common: Common, rngs: nnx.Rngs):
        self.common = common
        inside = [image_channels, *widths][: len(widths)]
        self.levels = nnx.Dict(
            {
                f"level{i}": Downsampling(a, b, common, rngs, with_conv=True)
                for i, (a, b) in enumerate(zip(inside, widths, strict=True))
            }
        )

    def step(self, level: int, pyramid: Features, h: Features) -> tuple[Features, Features]:
        total = self.levels[f"level{level}"](pyramid).plus(h).scaled(self.common.rescaling)
        return total, total


class Head(nnx.Module):
    """Normalisation, activation and a convolution."""

    def __init__(self, inside: int, outside: int, common: Common, rngs: nnx.Rngs, *, scale: float | int):
        self.common = common
        self.norm = common.norm(inside)
        self.conv = common.conv(inside, outside, rngs, scale=scale)

    def __call__(self, h: Features) -> Features:
        return convolved(self.conv, self.common.activate(h.normalised(self.norm)))


class AbstractOutput(nnx.Module):
    """How the image leaves the network. `widths` are those of the features at the end of each level, lowest last."""

    @abc.abstractmethod
    def step(self, level: int, pyramid: Features | None, h: Features) -> tuple[Features | None, Features]:
        """Pyramid and features after `level`; the pyramid comes from the resolution below, None at the lowest."""

    @abc.abstractmethod
    def finish(self, pyramid: Features | None, h: Features) -> Features:
        """The image."""


class NoOutput(AbstractOutput):
    """From the features of the first resolution."""

    def __init__(self, image_channels: int, widths: list[int], common: Common, rngs: nnx.Rngs):
        self.head = Head(widths[0], image_channels, common, rngs, scale=common.init_scale)

    def step(self, level: int, pyramid: Features | None, h: Features) -> tuple[Features | None, Features]:
        return pyramid, h

    def finish(self, pyramid: Features | None, h: Features) -> Features:
        return self.head(h)


class OutputSkip(AbstractOutput):
    """The sum of an image from every resolution."""

    def __init__(self, image_channels: int, widths: list[int], common: Common, rngs: nnx.Rngs):
        self.larger = Upsampling(image_channels, image_channels, common, rngs, with_conv=False)
        self.heads = nnx.Dict(
            {
                f"level{i}": Head(width, image_channels, common, rngs, scale=common.init_scale)
                for i, width in enumerate(widths)
            }
        )

    def step(self, level: int, pyramid: Features | None, h: Features) -> tuple[Features | None, Features]:
        image = self.heads[f"level{level}"](h)
        return image if pyramid is None else self.larger(pyramid).plus(image), h

    def finish(self, pyramid: Features | None, h: Features) -> Features:
        assert pyramid is not None
        return pyramid


class OutputResidual(AbstractOutput):
    """From features to which every resolution below was added, made larger by a convolution."""

    def __init__(self, image_channels: int, widths: list[int], common: Common, rngs: nnx.Rngs):
        self.common = common
        self.lowest = Head(widths[-1], widths[-1], common, rngs, scale=1.0)
        self.levels = nnx.Dict(
            {
                f"level{i}": Upsampling(widths[i + 1], widths[i], common, rngs, with_conv=True)
                for i in range(len(widths) - 1)
            }
        )
        self.head = Head(widths[0], image_channels, common, rngs, scale=common.init_scale)

    def step(self, level: int, pyramid: Features | None, h: Features) -> tuple[Features | None, Features]:
        if pyramid is None:
            return self.lowest(h), h
        total = self.levels[f"level{level}"](pyramid).plus(h).scaled(self.common.rescaling)
        return total, total

    def finish(self, pyramid: Features | None, h: Features) -> Features:
        return self.head(h)


INPUTS = ("input_skip", "none", "residual")
OUTPUTS = {"none": NoOutput, "output_skip": OutputSkip, "residual": OutputResidual}


def make_input(
    name: str, combine: str, image_channels: int, widths: list[int], common: Common, rngs: nnx.Rngs
) -> AbstractInput:
    """The input of a name, for features of `widths` channels below each resolution but the last."""
    if name not in INPUTS:
        raise unknown_name("progressive_input", name, INPUTS)
    if combine not in COMBINE:
        raise unknown_name("combine", combine, COMBINE)
    if name == "input_skip":
        return InputSkip(image_channels, widths, combine, common, rngs)
    return InputResidual(image_channels, widths, common, rngs) if name == "residual" else NoInput()


def make_output(name: str, image_channels: int, widths: list[int], common: Common, rngs: nnx.Rngs) -> AbstractOutput:
    """The output of a name, for features of `widths` channels at the end of each level."""
    if name not in OUTPUTS:
        raise unknown_name("progressive", name, OUTPUTS)
    return OUTPUTS[name](image_channels, widths, common, rngs)
