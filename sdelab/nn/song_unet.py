"""The networks of Song et al. in EDM's version."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab._checks import check_count, unknown_name
from sdelab._typing import PRNGKeys
from sdelab.nn.conditioning import Condition
from sdelab.nn.edm_backbone import EDMBackbone, UNetPlan
from sdelab.nn.edm_block import BlockStyle, shift
from sdelab.nn.edm_embedding import SongEmbedding
from sdelab.nn.features import convolved
from sdelab.nn.initialization import uniform_fan_avg
from sdelab.nn.ncsnpp_blocks import Common
from sdelab.nn.ncsnpp_pyramid import AbstractInput, AbstractOutput, make_input, make_output
from sdelab.nn.resampling import PLAIN, Taps

ENCODERS = {"residual": "residual", "skip": "input_skip", "standard": "none"}
DECODERS = {"skip": "output_skip", "standard": "none"}
"""By EDM's names, the ways in which the image enters and leaves `NCSNpp`."""


class SongUNet(nnx.Module):
    r"""EDM's version of the DDPM++ and NCSN++ networks, `(batch, *space, channels)` to the same sides, float32 out.

    Karras et al. (2022), https://arxiv.org/abs/2206.00364, `SongUNet` of https://github.com/NVlabs/edm, after
    Song et al. (2021), appendix H, https://arxiv.org/abs/2011.13456. The defaults are DDPM++, without
    its dropout (0.1; 0.13 in EDM's training on CIFAR-10); NCSN++ is
    `embedding="fourier"`, `encoder="residual"`, `fir=(1, 3, 3, 1)`, `noise_multiplier=2`. EDM's own training takes
    the `multipliers` (2, 2, 2).

    Arguments: `image_channels`; `image_size`, a side, by which `attention_resolutions` name levels (images with other
    sides are taken too); `out_channels`, by default `image_channels`; `channels`, and `multipliers` of it at each
    resolution, the image halved from one to the next; `blocks`, per resolution; `embedding`, "positional" or
    "fourier"; `encoder`, "standard", or with a pyramid of the image added on the way down: "skip" (through a linear
    map), "residual" (through a convolution, and passed on); `decoder`, "standard", or "skip": the output is a sum
    over resolutions; `fir`, the taps of the resampling filter, None for nearest neighbours and averages;
    `noise_multiplier` and `embedding_multiplier` of `channels`, the widths of the noise level's features and of the
    embedding; `classes` and `augmentations`, numbers of the condition, 0 for none; `label_dropout` and `dropout`,
    rates, active where keys are given; `dims`, 1, 2 or 3; `rematerialise` the blocks in the backward pass; `dtype` of
    what has pixels and `param_dtype`.

    Condition: see `sdelab.nn.conditioning.Condition`.
    """

    def __init__(
        self,
        image_channels: int,
        *,
        image_size: int,
        out_channels: int | None = None,
        channels: int = 128,
        multipliers: tuple[int | float, ...] = (1, 2, 2, 2),
        blocks: int = 4,
        attention_resolutions: tuple[int, ...] = (16,),
        embedding: str = "positional",
        encoder: str = "standard",
        decoder: str = "standard",
        fir: tuple[float | int, ...] | None = None,
        noise_multiplier: int = 1,
        embedding_multiplier: int = 4,
        classes: int = 0,
        augmentations: int = 0,
        label_dropout: float | int = 0.0,
        dropout: float | int = 0.0,
        dims: int = 2,
        rematerialise: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        plan = UNetPlan(
            image_channels, image_size, out_channels, channels, multipliers, blocks, attention_resolutions,
            embedding_multiplier, dropout, dims, rematerialise,
        )  # fmt: skip
        check_count(noise_multiplier=noise_multiplier)
        settings: dict[str, Any] = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(param_dtype)}
        self.plan, self.common = plan, _common(plan, PLAIN if fir is None else tuple(fir), **settings)
        told = {"classes": classes, "augmentations": augmentations, "label_dropout": label_dropout, **settings}
        self.embedding = SongEmbedding(embedding, noise_multiplier * channels, plan.embedding_width, **told, rngs=rngs)
        self.first = self.common.conv(image_channels, channels, rngs)
        self.backbone = EDMBackbone(channels, plan, song_style(self.common.taps), **settings, rngs=rngs)
        self.input = _make_input(encoder, plan, self.common, rngs)
        self.output = _make_output(decoder, plan, self.common, rngs)

    def __call__(
        self,
        x: Float[Array, "batch *space channels"],
        c_noise: Float[Array, " batch"],
        condition: Condition | None = None,
        keys: PRNGKeys | None = None,
    ) -> Float[Array, "batch *space out"]:
        self.plan.check_image(x)
        embedding = self.embedding(c_noise, condition, keys)
        image = x.astype(self.common.dtype)
        skips = self.backbone.encode(convolved(self.first, image), embedding, keys, image, self.input)
        pyramid, h = None, skips[-1]
        for level, h in self.backbone.decode(skips, embedding, keys):
            pyramid, h = self.output.step(level, pyramid, h)
        return self.output.finish(pyramid, h).whole().astype(jnp.float32)


def song_style(taps: Taps) -> BlockStyle:
    """The blocks: the embedding added before the norm, one head, branches that start small, sums over sqrt(2)."""
    return BlockStyle(
        modulate=shift,
        skip_scale=math.sqrt(0.5),
        epsilon=1e-6,
        taps=taps,
        project_resampled=True,
        attention_up=1,
        heads=_one_head,
        kernel_init=uniform_fan_avg(),
        last_init=uniform_fan_avg(0.0),
        attention_init=uniform_fan_avg(0.2),
        bias_init=_zeros,
    )


def _common(plan: UNetPlan, taps: Taps, **settings: Any) -> Common:
    """What the pyramids of `NCSNpp` need to know."""
    return Common(
        block="biggan",
        resample_with_conv=True,
        fir=tuple(taps),
        embedding=plan.embedding_width,
        dropout=plan.dropout,
        groups=None,
        activation="swish",
        init_scale=0.0,
        skip_rescale=True,
        dims=plan.dims,
        **settings,
    )


def _make_input(encoder: str, plan: UNetPlan, common: Common, rngs: nnx.Rngs) -> AbstractInput:
    if encoder not in ENCODERS:
        raise unknown_name("encoder", encoder, ENCODERS)
    way_down = dataclasses.replace(common, fir=common.taps[::-1])  # as in the blocks
    return make_input(ENCODERS[encoder], "sum", plan.image_channels, plan.widths[:-1], way_down, rngs)


def _make_output(decoder: str, plan: UNetPlan, common: Common, rngs: nnx.Rngs) -> AbstractOutput:
    if decoder not in DECODERS:
        raise unknown_name("decoder", decoder, DECODERS)
    return make_output(DECODERS[decoder], plan.out, plan.widths, common, rngs)


def _one_head(channels: int) -> int:
    return 1


def _zeros(inputs: int) -> nnx.Initializer:
    return nnx.initializers.zeros_init()
