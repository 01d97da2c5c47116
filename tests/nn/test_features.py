"""What is still to be added to the channels of an image is, wherever the image goes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn.adm import adm_style
from sdelab.nn.convolution import Conv
from sdelab.nn.edm_block import EDMBlock
from sdelab.nn.features import Features, convolved, joined, map_channels
from sdelab.nn.layers import GroupNorm
from sdelab.nn.ncsnpp_blocks import AttentionBlock, Common, Downsampling, ResidualBlock, Upsampling
from sdelab.nn.ncsnpp_pyramid import Head, InputResidual, InputSkip, OutputResidual
from sdelab.nn.resampling import downsample, upsample
from sdelab.nn.song_unet import song_style
from tests.nn.compiled import large_sums

FIR = (1, 2, 3, 4)
STYLES = {"song": song_style((1, 1)), "song with FIR": song_style(FIR), "ADM": adm_style(1, lambda _: 2)}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), jnp.float32)


def common(fir=None, dims=2):
    return Common("biggan", True, fir, 24, 0.0, None, "swish", 0.5, True, dims, jnp.float32, jnp.float32)


def made(kind, *arguments, **options):
    """With random weights, none of whose biases is zero."""
    module = kind(*arguments, rngs=nnx.Rngs(params=0), **options)
    graphdef, variables = nnx.split(module)
    random = np.random.RandomState(0)
    return nnx.merge(
        graphdef, jax.tree.map(lambda a: jnp.asarray(0.5 * random.normal(size=a.shape), a.dtype), variables)
    )


def block(kind, *arguments, **options):
    return lambda x: made(kind, *arguments, **options)(x, normal(2, 24, seed=1), None)


def residual(width, dims=2, fir=None, resample=None):
    return block(ResidualBlock, 8, width, common(fir, dims), 0, resample=resample)


def layer(kind, *arguments, **options):
    return lambda x: made(kind, *arguments, **options)(x)


def step(kind, pyramid, *arguments):
    return lambda x: made(kind, *arguments).step(0, pyramid, x)[1]


def edm(style, width, dims=2, resample=None, heads=2):
    return block(EDMBlock, 8, width, 24, STYLES[style], resample=resample, heads=heads, dims=dims)


PYRAMID = Features(normal(2, 16, 16, 3), normal(1, 3))
PLACES = {
    **{
        f"residual block, {width} channels, {fir}, {resample}": residual(width, fir=fir, resample=resample)
        for width, fir, resample in itertools.product((8, 12), (None, FIR), (None, "up", "down"))
    },
    **{
        f"residual block, {dims}d, {fir}, {resample}": residual(8, dims, fir, resample)
        for dims, fir, resample in ((1, None, "up"), (1, FIR, "down"), (3, FIR, "up"), (3, None, "down"))
    },
    **{
        f"EDM block, {style}, {width} channels, {resample and resample.__name__}": edm(style, width, resample=resample)
        for style, width, resample in itertools.product(STYLES, (8, 12), (None, upsample, downsample))
    },
    "EDM block, 1d": edm("song with FIR", 8, 1, upsample),
    "EDM block, 3d": edm("ADM", 8, 3, downsample, heads=0),
    **{
        f"{kind.__name__}, {fir}, {with_conv}": layer(kind, 8, 12, common(fir), with_conv=with_conv)
        for kind, fir, with_conv in itertools.product((Downsampling, Upsampling), (None, FIR), (True, False))
    },
    "means of pixels of an odd side": lambda x: Features(x.image[:, 1:], x.offset).resampled(downsample, (1, 1)),
    "attention": layer(AttentionBlock, 8, common()),
    "head": layer(Head, 8, 3, common(), scale=1.0),
    "input skip": step(InputSkip, PYRAMID, 3, [8], "sum", common()),
    "input skip, concatenated": step(InputSkip, PYRAMID, 3, [8], "cat", common(FIR)),
    "residual input": step(InputResidual, PYRAMID, 3, [8], common(FIR)),
    "residual input, strided": step(InputResidual, PYRAMID, 3, [8], common()),
    "residual output": step(OutputResidual, Features(normal(2, 4, 4, 4), normal(1, 4)), 3, [8, 4], common()),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_offset_is_as_good_as_its_sum_with_the_image(place):
    dims = 1 if "1d" in place else 3 if "3d" in place else 2
    x = Features(normal(2, *(8,) * dims, 8), normal(1, 8, seed=2))
    ours, summed = (jax.jit(lambda x: PLACES[place](x).whole())(x) for x in (x, Features.of(x.whole())))
    np.testing.assert_allclose(ours, summed, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(summed))))


@pytest.mark.parametrize("fir", [None, FIR])
@pytest.mark.parametrize("kind", [InputSkip, InputResidual])
def test_so_is_that_of_a_pyramid(kind, fir):
    module = made(kind, 3, [8], *(["sum"] if kind is InputSkip else []), common(fir))
    h = Features(normal(2, 8, 8, 8), normal(1, 8))
    ours, summed = (module.step(0, pyramid, h) for pyramid in (PYRAMID, Features.of(PYRAMID.whole())))
    for one, other in zip(ours, summed, strict=True):
        np.testing.assert_allclose(
            one.whole(), other.whole(), rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(other.whole())))
        )


def test_several_features_are_those_of_all_their_channels():
    parts = [Features(normal(2, 8, 8, 3), normal(1, 3)), Features.of(normal(2, 8, 8, 5, seed=1))]
    linear = made(nnx.Linear, 8, 4)
    expected = 0.5 * linear(jnp.concatenate([x.whole() for x in parts], axis=-1))
    np.testing.assert_allclose(map_channels(linear, parts, 0.5).whole(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(map_channels(linear, [joined(parts)], 0.5).whole(), expected, rtol=1e-5, atol=1e-6)
    residual = made(ResidualBlock, 8, 4, common(), 0)
    embedding = normal(2, 24, seed=1)
    ours, summed = (residual(x, embedding, None).whole() for x in (parts, joined(parts)))
    np.testing.assert_allclose(ours, summed, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(summed))))


def test_a_convolution_is_scaled_with_its_bias():
    conv, x = made(Conv, 3, 5), normal(2, 4, 6, 3)
    np.testing.assert_allclose(convolved(conv, x, 0.5).whole(), 0.5 * conv(x), rtol=1e-5, atol=1e-6)


def test_in_bfloat16_an_offset_is_not_rounded():
    """One that bfloat16 cannot tell from 100, through sums, scales, maps and concatenations."""
    x = Features(normal(2, 8, 8, 8).astype(jnp.bfloat16), 100.0 + jnp.linspace(-0.2, 0.2, 8)[None, :])
    linear = made(nnx.Linear, 8, 8, dtype=jnp.bfloat16)
    linear.kernel[...] = jnp.eye(8)
    total = joined([map_channels(linear, [x]).plus(x).scaled(0.5), x])
    expected = jnp.concatenate([x.offset + 0.5 * linear.bias[None, :], x.offset], axis=-1)
    np.testing.assert_allclose(total.offset, expected, rtol=1e-6)
    assert len(np.unique(x.offset.astype(jnp.bfloat16))) == 1
    norm = GroupNorm(16, groups=1)
    exact = norm(total.image.astype(jnp.float32), offset=total.offset)
    np.testing.assert_allclose(total.normalised(norm).astype(jnp.float32), exact, rtol=2**-8, atol=1e-4)


def test_biases_of_a_residual_stream_have_gradients_without_passes_over_the_image():
    modules = [
        made(ResidualBlock, 8, 8, common(), 0),
        made(AttentionBlock, 8, common()),
        made(ResidualBlock, 8, 16, common(), 1),
        made(EDMBlock, 16, 16, 24, STYLES["ADM"], heads=2),
        made(Head, 16, 3, common(), scale=1.0),
    ]
    graphdef, variables = nnx.split(nnx.List(modules))
    x, embedding = normal(3, 16, 16, 8), normal(3, 24, seed=1)

    def of_stream(path):
        return path[-1] == "bias" and path[-2] in ("conv0", "conv1", "conv2", "skip", "out")

    flat = nnx.to_flat_state(variables)
    biases = {path: value for path, value in flat if of_stream(path)}
    others = {path: value for path, value in flat if not of_stream(path)}
    assert len(biases) == 9

    def loss(x, others, biases):
        first, attention, second, third, head = nnx.merge(graphdef, nnx.from_flat_state({**others, **biases}))
        h = attention(first(Features.of(x), embedding, None))
        return jnp.sum(jnp.sin(head(third(second(h, embedding, None), embedding, None)).whole()))

    def sums_over_images(*arguments: int) -> list[tuple[int, ...]]:
        return large_sums(jax.jit(jax.grad(loss, arguments)).lower(x, others, biases).compile(), x.size)

    assert sums_over_images(0, 1, 2) == sums_over_images(0, 1)
    assert {(3, 8), (3, 16)} <= set(sums_over_images(0, 1))
