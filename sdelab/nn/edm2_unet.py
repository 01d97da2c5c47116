"""EDM2's network, and the sizes it was published in."""

import itertools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from sdelab._checks import check_count, check_optional_count, check_unit_interval
from sdelab._typing import PRNGKeys
from sdelab.nn.convolution import check_dims
from sdelab.nn.edm2_blocks import DecoderBlock, EncoderBlock
from sdelab.nn.label_dropout import check_dropout, drop_labels
from sdelab.nn.layers import at_least_single, check_labels, label_rows
from sdelab.nn.magnitude_preserving import MPConv, MPFourier, mp_cat, mp_silu, mp_sum
from sdelab.nn.rematerialisation import run, run_again
from sdelab.nn.resampling import downsample

EDM2_SIZES = {
    "XXS": {"channels": 64, "dropout": 0.0},
    "XS": {"channels": 128, "dropout": 0.0},
    "S": {"channels": 192, "dropout": 0.0},
    "M": {"channels": 256, "dropout": 0.1},
    "L": {"channels": 320, "dropout": 0.1},
    "XL": {"channels": 384, "dropout": 0.1},
    "XXL": {"channels": 448, "dropout": 0.1},
}
"""Arguments of the published sizes: EDM2-S for ImageNet-512 is `EDM2UNet(4, 64, classes=1000, **EDM2_SIZES["S"], rngs=rngs)`."""


class EDM2UNet(nnx.Module):
    r"""The magnitude-preserving U-Net of EDM2, config G; `(batch, *space, image_channels)` to the same shape, float32.

    No norms but a pixel norm in the encoder and of queries, keys and values, no biases but one channel of ones, and every operation of
    `sdelab.nn.magnitude_preserving`: activations keep a root mean square of about 1 throughout training. What learns
    a magnitude are the gains, of the embedding in each block and of the output; they start at 0, and so does the
    network. Karras et al. (2024), section 2 and figure 21, https://arxiv.org/abs/2312.02696.

    It is trained with forced weight normalisation, `sdelab.nn.normalize_weights` after every update, a learning rate that falls,
    `sdelab.train.inverse_sqrt_decay`, on a `c_noise` of $\tfrac14 \log\sigma$, as `sdelab.score.EDMPreconditioner` has it, and
    an input of unit variance.

    Arguments: `image_channels`; `image_size`, the side at which `attention_resolutions` are counted (any sides that
    the levels can halve are accepted); `channels`, and `multipliers` of them at each resolution;
    `blocks`, per resolution in the encoder, one more in the decoder; `attention_resolutions`, sides with attention, which
    the start of the decoder always has; `head_size`, channels of a head: `width // head_size` heads, and with fewer channels, as
    published, no attention; `noise_multiplier` and `embedding_multiplier` of `channels`, the widths of the noise level's features
    and of the embedding, by default those of the first level and of the widest; `label_balance`, `skip_balance`,
    `residual_balance` and `attention_balance`, shares in [0, 1] of the label in the embedding, of what the encoder left, of the
    branches of the blocks and of their attention; `dims`, 1, 2 or 3 spatial axes; `classes`, 0 for a network without labels, and a
    negative label, or none, is a vector of zeros; `dropout`, and `label_dropout`, the rate at which labels become "none", rates that
    are active where keys are given; `rematerialise`: what is inside a block is computed again in the backward pass; `dtype` of what
    has pixels and `param_dtype`.
    """

    def __init__(
        self,
        image_channels: int,
        image_size: int,
        *,
        channels: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 3, 4),
        blocks: int = 3,
        attention_resolutions: tuple[int, ...] = (16, 8),
        head_size: int = 64,
        noise_multiplier: int | None = None,
        embedding_multiplier: int | None = None,
        label_balance: float | int = 0.5,
        skip_balance: float | int = 0.5,
        residual_balance: float | int = 0.3,
        attention_balance: float | int = 0.3,
        dims: int = 2,
        classes: int = 0,
        dropout: float | int = 0.0,
        label_dropout: float | int = 0.0,
        rematerialise: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_count(image_channels=image_channels, image_size=image_size, channels=channels, blocks=blocks)
        check_count(head_size=head_size)
        check_optional_count(noise_multiplier=noise_multiplier, embedding_multiplier=embedding_multiplier)
        check_unit_interval(label_balance=label_balance, skip_balance=skip_balance)
        check_unit_interval(residual_balance=residual_balance, attention_balance=attention_balance)
        check_dims(dims)
        check_dropout(dropout, label_dropout, classes)
        widths = _widths(channels, multipliers)
        attended = _attended(image_size, len(widths), attention_resolutions)
        settings = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.image_channels, self.dims, self.classes, self.label_dropout = image_channels, dims, classes, label_dropout
        self.levels, self.count, self.dtype = len(widths), blocks, jnp.dtype(dtype)
        self.label_balance, self.skip_balance = label_balance, skip_balance
        self._run = run_again if rematerialise else run
        features = widths[0] if noise_multiplier is None else noise_multiplier * channels
        width = max(widths) if embedding_multiplier is None else embedding_multiplier * channels
        self.fourier = MPFourier(features, param_dtype=param_dtype, rngs=rngs)
        single = settings | {"dtype": at_least_single(dtype)}
        self.noise = MPConv(features, width, **single)
        self.label = MPConv(classes, width, **single) if classes > 0 else None
        self.first = MPConv(image_channels + 1, widths[0], 3, dims=dims, **settings)
        balances = residual_balance, attention_balance
        common = {"head_size": head_size, "balances": balances, "dims": dims, "rate": dropout, **settings}
        self.encoder, self.decoder = map(nnx.Dict, _build_blocks(widths, width, blocks, attended, **common))
        self.last = MPConv(widths[0], image_channels, 3, dims=dims, **settings)
        self.gain = nnx.Param(jnp.zeros((), param_dtype))

    def __call__(
        self,
        x: Float[Array, "batch *space channels"],
        c_noise: Float[Array, " batch"],
        condition: Int[Array, " batch"] | None = None,
        keys: PRNGKeys | None = None,
    ) -> Float[Array, "batch *space channels"]:
        self._check(x)
        embedding = self._embed(c_noise, condition, keys)
        x = x.astype(self.dtype)
        h, skips = self._encode(jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1), embedding, keys)
        h = self._decode(h, skips, embedding, keys)
        return self.last(h, self.gain[...].astype(jnp.float32)).astype(jnp.float32)

    def _embed(self, c_noise: Array, condition: Array | None, keys: PRNGKeys | None) -> Array:
        h = self.noise(self.fourier(c_noise))
        if condition is not None:
            check_labels(condition, self.classes)
        if self.label is None:
            return mp_silu(h)
        rows = jnp.zeros_like(h)
        if condition is not None:
            condition = drop_labels(condition, self.label_dropout, keys)
            rows = label_rows(self.label.kernel(math.sqrt(self.classes)), condition).astype(h.dtype)
        return mp_silu(mp_sum(h, rows, self.label_balance))

    def _encode(self, x: Array, embedding: Array, keys: PRNGKeys | None) -> tuple[Array, list[Array]]:
        h = self.first(x)
        skips = [h]
        for level in range(self.levels):
            if level > 0:
                h = self._run(self.encoder[f"level{level}_down"], downsample(h), embedding, keys)
                skips.append(h)
            for i in range(self.count):
                h = self._run(self.encoder[f"level{level}_block{i}"], h, embedding, keys)
                skips.append(h)
        return h, skips

    def _decode(self, h: Array, skips: list[Array], embedding: Array, keys: PRNGKeys | None) -> Array:
        for name in ("in0", "in1"):
            h = self._run(self.decoder[name], h, embedding, keys)
        for level in reversed(range(self.levels)):
            if level < self.levels - 1:
                h = self._run(self.decoder[f"level{level}_up"], h, embedding, keys)
            for i in range(self.count + 1):
                block = self.decoder[f"level{level}_block{i}"]
                h = self._run(block, mp_cat(h, skips.pop(), self.skip_balance), embedding, keys)
        return h

    def _check(self, x: Array) -> None:
        unit = 2 ** (self.levels - 1)
        if x.ndim != self.dims + 2 or x.shape[-1] != self.image_channels or any(s % unit for s in x.shape[1:-1]):
            raise ValueError(
                f"x has shape {x.shape}; this network takes (batch, *space, {self.image_channels}) with {self.dims} "
                f"spatial sides that are multiples of {unit}."
            )


class _Block(NamedTuple):
    name: str
    inputs: int
    outputs: int
    attention: bool
    up: bool = False


def _encoder_plan(widths: list[int], blocks: int, attended: list[bool]) -> list[_Block]:
    plan, inputs = [], widths[0]
    for level, outputs in enumerate(widths):
        if level > 0:
            plan.append(_Block(f"level{level}_down", inputs, inputs, False))
        for i in range(blocks):
            plan.append(_Block(f"level{level}_block{i}", inputs, outputs, attended[level]))
            inputs = outputs
    return plan


def _decoder_plan(widths: list[int], blocks: int, attended: list[bool], skips: list[int]) -> list[_Block]:
    inputs = widths[-1]
    plan = [_Block("in0", inputs, inputs, True), _Block("in1", inputs, inputs, False)]
    for level, outputs in reversed(list(enumerate(widths))):
        if level < len(widths) - 1:
            plan.append(_Block(f"level{level}_up", inputs, inputs, False, up=True))
        for i in range(blocks + 1):
            plan.append(_Block(f"level{level}_block{i}", inputs + skips.pop(), outputs, attended[level]))
            inputs = outputs
    return plan


def _build_blocks(
    widths: list[int], embedding: int, blocks: int, attended: list[bool], **common: Any
) -> list[dict[str, nnx.Module]]:
    """The blocks of encoder and decoder, by name; all are numbered, for their dropout."""
    encoder = _encoder_plan(widths, blocks, attended)
    decoder = _decoder_plan(widths, blocks, attended, [widths[0], *(block.outputs for block in encoder)])
    numbers = itertools.count()

    def build(kind: type[EncoderBlock] | type[DecoderBlock], block: _Block) -> nnx.Module:
        settings = {"attention": block.attention, "number": next(numbers), **common}
        if kind is DecoderBlock:
            settings["up"] = block.up
        return kind(block.inputs, block.outputs, embedding, **settings)

    plans = ((EncoderBlock, encoder), (DecoderBlock, decoder))
    return [{block.name: build(kind, block) for block in plan} for kind, plan in plans]


def _attended(image_size: int, levels: int, attention_resolutions: tuple[int, ...]) -> list[bool]:
    """Whether each level has attention."""
    if image_size % 2 ** (levels - 1):
        raise ValueError(
            f"image_size = {image_size} is not accepted; image_size must be a multiple of {2 ** (levels - 1)}, so that it "
            f"can be halved to {levels} resolutions."
        )
    sides = [image_size >> level for level in range(levels)]
    if not set(attention_resolutions) <= set(sides):
        raise ValueError(
            f"attention_resolutions = {attention_resolutions} is not accepted; the network has the resolutions "
            f"{', '.join(map(str, sides))}."
        )
    return [side in attention_resolutions for side in sides]


def _widths(channels: int, multipliers: tuple[int, ...]) -> list[int]:
    if not multipliers:
        raise ValueError("multipliers = () is not accepted; multipliers must name at least one resolution.")
    for multiplier in multipliers:
        check_count(multipliers=multiplier)
    return [channels * multiplier for multiplier in multipliers]
