"""The network of Dhariwal and Nichol, "ablated diffusion model", in EDM's version."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab._checks import check_count, check_optional_count
from sdelab._typing import PRNGKeys
from sdelab.nn.attention import heads_of
from sdelab.nn.conditioning import Condition
from sdelab.nn.convolution import Conv
from sdelab.nn.edm_backbone import EDMBackbone, UNetPlan
from sdelab.nn.edm_block import BlockStyle, group_norm, scale_shift
from sdelab.nn.edm_embedding import ADMEmbedding
from sdelab.nn.features import convolved
from sdelab.nn.initialization import uniform_bias, uniform_fan_in
from sdelab.nn.ncsnpp_pyramid import NoInput
from sdelab.nn.resampling import PLAIN

_EPSILON = 1e-5


class ADM(nnx.Module):
    """The ablated diffusion model, `(batch, *space, channels)` to the same sides, float32 out; starts at zero.

    Dhariwal and Nichol (2021), section 3, https://arxiv.org/abs/2105.05233, as in Karras et al. (2022),
    https://arxiv.org/abs/2206.00364, `DhariwalUNet` of https://github.com/NVlabs/edm: the embedding scales and shifts
    the second norm of a block, and the number of heads follows from the channels. The defaults are the
    sizes for ImageNet at 64 pixels, which was trained with `classes=1000` and `dropout=0.1`; those of Dhariwal and Nichol's other
    networks are in `sdelab.nn.presets`.

    Arguments: `image_channels`; `image_size`, a side, by which `attention_resolutions` name levels (images with other
    sides are taken too); `out_channels`, by default `image_channels` (iDDPM's networks return twice as many: see
    `LeadingChannels`); `channels`, and `multipliers` of it at each resolution, the image halved from one to the next;
    `blocks`, per resolution; `head_size`, channels of a head: `width // head_size` heads, and with fewer channels, as published, no
    attention; `heads`, in their place, so many at every level that attends; `embedding_multiplier` of `channels`, the width of the
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
        channels: int = 192,
        multipliers: tuple[int | float, ...] = (1, 2, 3, 4),
        blocks: int = 3,
        attention_resolutions: tuple[int, ...] = (32, 16, 8),
        head_size: int = 64,
        heads: int | None = None,
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
        check_count(head_size=head_size)
        check_optional_count(heads=heads)
        self.plan, self.dtype, inside = plan, jnp.dtype(dtype), plan.widths[0]
        settings: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        told = {"classes": classes, "augmentations": augmentations, "label_dropout": label_dropout}
        self.embedding = ADMEmbedding(channels, plan.embedding_width, **told, **settings)
        uniform = {"kernel_init": uniform_fan_in(), "bias_init": uniform_bias(image_channels * 3**dims)}
        self.first = Conv(image_channels, inside, dims=dims, **uniform, **settings)
        self.backbone = EDMBackbone(
            inside, plan, adm_style(blocks, functools.partial(heads_of, head_size, heads)), **settings
        )
        self.norm = group_norm(inside, _EPSILON, param_dtype=param_dtype)
        self.last = Conv(inside, plan.out, dims=dims, kernel_init=nnx.initializers.zeros_init(), **settings)

    def __call__(
        self,
        x: Float[Array, "batch *space channels"],
        c_noise: Float[Array, " batch"],
        condition: Condition | None = None,
        keys: PRNGKeys | None = None,
    ) -> Float[Array, "batch *space out"]:
        self.plan.check_image(x)
        embedding = self.embedding(c_noise, condition, keys)
        image = x.astype(self.dtype)
        skips = self.backbone.encode(convolved(self.first, image), embedding, keys, image, NoInput())
        *_, (_, h) = self.backbone.decode(skips, embedding, keys)
        return self.last(jax.nn.silu(h.normalised(self.norm))).astype(jnp.float32)


def adm_style(blocks: int, heads: Callable[[int], int]) -> BlockStyle:
    """The blocks: scale and shift, as many heads as `heads` says of the channels, branches that start at zero."""
    return BlockStyle(
        modulate=scale_shift,
        skip_scale=1.0,
        epsilon=_EPSILON,
        taps=PLAIN,
        project_resampled=False,
        attention_up=blocks + 1,
        heads=heads,
        kernel_init=uniform_fan_in(),
        last_init=nnx.initializers.zeros_init(),
        attention_init=uniform_fan_in(),
        bias_init=uniform_bias,
    )
