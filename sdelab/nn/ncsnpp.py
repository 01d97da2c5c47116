import itertools
from collections.abc import Iterator

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from sdelab._broadcast import expand_right
from sdelab._checks import check_count
from sdelab._typing import PRNGKeys
from sdelab.nn.features import Features, convolved
from sdelab.nn.ncsnpp_blocks import Common
from sdelab.nn.ncsnpp_embedding import LabelEmbedding, make_noise_label
from sdelab.nn.ncsnpp_levels import DownLevel, Middle, UpLevel, between_levels
from sdelab.nn.ncsnpp_pyramid import make_input, make_output
from sdelab.nn.rematerialisation import run, run_again


class NCSNpp(nnx.Module):
    r"""The score networks of Song et al.: DDPM, DDPM++, NCSN++, their deep and high-resolution forms. Float32 out.

    A U-Net of residual blocks with attention at chosen resolutions, whose skips are concatenated, in one, two or three
    spatial dimensions. `sdelab.nn.presets` has the arguments of each published form. Song et al. (2021), appendix H,
    https://arxiv.org/abs/2011.13456; Ho et al. (2020), appendix B, https://arxiv.org/abs/2006.11239.

    `c_noise` is the published label. With the Fourier embedding it is sigma (the network takes the logarithm). With
    the positional one it is a step: 999 t for VP and sub-VP; for discrete VE the index into `num_scales` sigmas that
    fall from `sigma_max` to `sigma_min` geometrically, 0 being the largest.

    Arguments:
    - `image_channels`; `image_size`, the side that `attention_resolutions` count from; `dims`, 1, 2 or 3;
    - `channels`, at full resolution; `multipliers` of it, the sides halved from one to the next; `blocks`, per
      resolution on the way down, one more on the way up;
    - `block`: with `biggan` the resolution changes inside a residual block, with `ddpm` in a layer of its own, which is
      a convolution if `resample_with_conv`; `fir`, the taps of the resampling filter, as (1, 3, 3, 1), None for nearest
      neighbours and averages or plain strided convolutions;
    - `progressive_input`: `none`, `input_skip`, joined with the features by `combine`, `sum` or `cat`, or `residual`;
      `progressive`, of the output: `none`, `output_skip` or `residual`;
    - `embedding` of the label: `positional`, or `fourier` with random frequencies of scale `fourier_scale`; without
      `noise_conditional` there is none; `scale_by_sigma`: the output is divided by sigma; `centered`: False for images
      in [0, 1], which the network maps to [-1, 1] itself;
    - `groups` of every normalisation, None for min(channels // 4, 32); `skip_rescale`: sums of skip and branch are
      divided by sqrt(2); `activation`: `swish`, `elu`, `relu` or `lrelu`; `init_scale` >= 0, of the last convolution of
      every branch and of the network;
    - `classes`, 0 for a network without class labels; `dropout`, a rate in [0, 1), active where keys are given;
      `rematerialise`: what is inside a block is computed again in the backward pass; `dtype` of what has pixels and
      `param_dtype`.
    """

    def __init__(
        self, image_channels: int, *, image_size: int, dims: int = 2,
        channels: int = 128, multipliers: tuple[int, ...] = (1, 2, 2, 2), blocks: int = 4,
        attention_resolutions: tuple[int, ...] = (16,),
        block: str = "biggan", resample_with_conv: bool = True, fir: tuple[float | int, ...] | None = None,
        progressive_input: str = "none", progressive: str = "none", combine: str = "sum",
        embedding: str = "positional", fourier_scale: float | int = 16.0, noise_conditional: bool = True,
        scale_by_sigma: bool = False, sigma_min: float | int = 0.01, sigma_max: float | int = 50.0,
        num_scales: int = 1000, centered: bool = True,
        groups: int | None = None, skip_rescale: bool = True, activation: str = "swish", init_scale: float | int = 0.0,
        classes: int = 0, dropout: float | int = 0.0, rematerialise: bool = False,
        dtype: DTypeLike = jnp.float32, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        check_count(image_channels=image_channels, channels=channels, blocks=blocks)
        attended = _attended_levels(image_size, multipliers, attention_resolutions)
        width = 4 * channels if noise_conditional else 0
        common = Common(
            block, resample_with_conv, fir if fir is None else tuple(fir), width, dropout, groups, activation, init_scale,
            skip_rescale, dims, jnp.dtype(dtype), jnp.dtype(param_dtype),
        )  # fmt: skip
        self.common, self.image_channels, self.channels, self.blocks = common, image_channels, channels, blocks
        self.widths = tuple(channels * multiplier for multiplier in multipliers)
        self.scale_by_sigma, self.centered, self.rematerialise = scale_by_sigma, centered, rematerialise
        self.noise = make_noise_label(
            embedding, channels, fourier_scale, (sigma_min, sigma_max, num_scales), common, rngs
        )
        self.embedding = LabelEmbedding(self.noise.width, classes, common, rngs)
        below = list(self.widths[:-1])  # the features' channels when they arrive at the next resolution
        self.input = make_input(progressive_input, combine, image_channels, below, common, rngs)
        self.first = common.conv(image_channels, channels, rngs)
        self._make_levels(self.input.widths(below), attended, rngs)
        self.output = make_output(progressive, image_channels, list(self.widths), common, rngs)

    def _make_levels(self, entering: list[int], attended: list[bool], rngs: nnx.Rngs) -> None:
        """`entering`: the channels of the features at each resolution but the first, before its blocks."""
        numbers: Iterator[int] = itertools.count()
        down, shrink, up, grow, skips = {}, {}, {}, {}, [self.channels]
        for i, width in enumerate(self.widths):
            down[f"level{i}"] = DownLevel(skips[-1], width, self.blocks, attended[i], self.common, numbers, rngs)
            skips += [width] * self.blocks
            if i < len(entering):
                shrink[f"level{i}"] = between_levels("down", width, self.common, numbers, rngs)
                skips.append(entering[i])
        self.middle = Middle(self.widths[-1], self.common, numbers, rngs)
        inside = self.widths[-1]
        for i, width in reversed(list(enumerate(self.widths))):
            taken = [skips.pop() for _ in range(self.blocks + 1)]
            up[f"level{i}"] = UpLevel(inside, taken, width, attended[i], self.common, numbers, rngs)
            inside = width
            if i > 0:
                grow[f"level{i}"] = between_levels("up", width, self.common, numbers, rngs)
        self.down, self.shrink, self.up, self.grow = (nnx.Dict(levels) for levels in (down, shrink, up, grow))

    def __call__(
        self,
        x: Float[Array, "batch *space channels"],
        c_noise: Float[Array, " batch"],
        condition: Int[Array, " batch"] | None = None,
        keys: PRNGKeys | None = None,
    ) -> Float[Array, "batch *space channels"]:
        self._check(x)
        image = (x if self.centered else 2.0 * x - 1.0).astype(self.common.dtype)
        embedding = self.embedding(self.noise.features(c_noise), condition)
        h, skips = self._down(image, embedding, keys)
        call = run_again if self.rematerialise else run
        h = self.middle(h, embedding, keys, call)
        pyramid = None
        for i in reversed(range(len(self.widths))):
            taken = [skips.pop() for _ in range(self.blocks + 1)]
            h = self.up[f"level{i}"](h, taken, embedding, keys, call)
            pyramid, h = self.output.step(i, pyramid, h)
            if i > 0:
                h = call(self.grow[f"level{i}"], h, embedding, keys)
        out = self.output.finish(pyramid, h).whole().astype(jnp.float32)
        return out / expand_right(self.noise.sigma(c_noise), out) if self.scale_by_sigma else out

    def _down(self, image: Array, embedding: Array | None, keys: PRNGKeys | None) -> tuple[Features, list[Features]]:
        call = run_again if self.rematerialise else run
        pyramid, skips = Features.of(image), [convolved(self.first, image)]
        for i in range(len(self.widths)):
            skips += self.down[f"level{i}"](skips[-1], embedding, keys, call)
            if i < len(self.widths) - 1:
                h = call(self.shrink[f"level{i}"], skips[-1], embedding, keys)
                pyramid, h = self.input.step(i, pyramid, h)
                skips.append(h)
        return skips[-1], skips

    def _check(self, x: Array) -> None:
        unit, dims = 2 ** (len(self.widths) - 1), self.common.dims
        if x.ndim != dims + 2 or x.shape[-1] != self.image_channels or any(side % unit for side in x.shape[1:-1]):
            raise ValueError(
                f"x has shape {x.shape}; this network takes (batch, {dims} sides, {self.image_channels} channels), "
                f"sides that are multiples of {unit}."
            )


def _attended_levels(image_size: int, multipliers: tuple[int, ...], resolutions: tuple[int, ...]) -> list[bool]:
    """Whether each level has attention. Errors: a resolution that no level has."""
    check_count(image_size=image_size)
    if not multipliers:
        raise ValueError("multipliers = () is not accepted; multipliers must name at least one resolution.")
    for multiplier in multipliers:
        check_count(multipliers=multiplier)
    sides = [image_size // 2**i for i in range(len(multipliers))]
    for resolution in resolutions:
        if resolution not in sides:
            raise ValueError(
                f"attention_resolutions = {tuple(resolutions)} is not accepted; the levels have the sides {sides}."
            )
    return [side in resolutions for side in sides]
