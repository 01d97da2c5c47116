"""What is still to be added to the channels of an image is, wherever the image goes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn.adm import adm_style
from sdelab.nn.edm_block import EDMBlock
from sdelab.nn.features import Features, features, joined, map_channels, whole
from sdelab.nn.ncsnpp_blocks import AttentionBlock, Common, Downsampling, ResidualBlock, Upsampling
from sdelab.nn.ncsnpp_pyramid import Head, InputResidual, InputSkip, OutputResidual
from sdelab.nn.resampling import downsample, upsample
from sdelab.nn.song_unet import song_style
from tests.nn.compiled import large_sums

FIR = (1, 3, 3, 1)
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


PLACES = {
    **{
        f"residual block, {width} channels, {fir}, {resample}": residual(width, fir=fir, resample=resample)
        for width, fir, resample in itertools.product((8, 12), (None, FIR), (None, "up", "down"))
    },
    **{f"residual block, {dims}d, {r}": residual(8, dims, resample=r) for dims in (1, 3) for r in ("up", "down")},
    **{
        f"EDM block, {name}, {width} channels, {r and r.__name__}": block(
            EDMBlock, 8, width, 24, STYLES[name], resample=r, heads=2
        )
        for name, width, r in itertools.product(STYLES, (8, 12), (None, upsample, downsample))
    },
    **{
        f"{kind.__name__}, {fir}, {with_conv}": layer(kind, 8, 12, common(fir), with_conv=with_conv)
        for kind, fir, with_conv in itertools.product((Downsampling, Upsampling), (None, FIR), (True, False))
    },
    "attention": layer(AttentionBlock, 8, common()),
    "head": layer(Head, 8, 3, common(), scale=1.0),
    "input skip": step(InputSkip, normal(2, 16, 16, 3), 3, [8], "sum", common()),
    "input skip, concatenated": step(InputSkip, normal(2, 16, 16, 3), 3, [8], "cat", common()),
    "residual input": step(InputResidual, normal(2, 16, 16, 3), 3, [8], common(FIR)),
    "residual output": step(OutputResidual, normal(2, 4, 4, 4), 3, [8, 4], common()),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_offset_is_as_good_as_its_sum_with_the_image(place):
    dims = 1 if "1d" in place else 3 if "3d" in place else 2
    x = Features(normal(2, *(8,) * dims, 8), normal(1, 8, seed=2))
    ours, summed = (jax.jit(lambda x: whole(PLACES[place](x)))(x) for x in (x, whole(x)))
    np.testing.assert_allclose(ours, summed, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(summed))))


def test_several_features_are_those_of_all_their_channels():
    parts = [Features(normal(2, 8, 8, 3), normal(1, 3)), features(normal(2, 8, 8, 5, seed=1))]
    linear = made(nnx.Linear, 8, 4)
    expected = 0.5 * linear(jnp.concatenate([whole(x) for x in parts], axis=-1))
    np.testing.assert_allclose(whole(map_channels(linear, parts, 0.5)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole(map_channels(linear, [joined(parts)], 0.5)), expected, rtol=1e-5, atol=1e-6)
    residual = made(ResidualBlock, 8, 4, common(), 0)
    embedding = normal(2, 24, seed=1)
    ours, summed = (whole(residual(x, embedding, None)) for x in (parts, joined(parts)))
    np.testing.assert_allclose(ours, summed, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(summed))))


def test_biases_of_a_residual_stream_have_gradients_without_passes_over_the_image():
    modules = [
        made(ResidualBlock, 8, 8, common(), 0),
        made(ResidualBlock, 8, 16, common(), 1),
        made(Head, 16, 3, common(), scale=1.0),
    ]
    graphdef, variables = nnx.split(nnx.List(modules))
    embedding, x = normal(2, 24, seed=1), normal(3, 16, 16, 8)

    def of_stream(path):
        return path[-1] == "bias" and path[-2] in ("conv2", "skip")

    flat = nnx.to_flat_state(variables)
    biases = {path: value for path, value in flat if of_stream(path)}
    others = {path: value for path, value in flat if not of_stream(path)}
    assert len(biases) == 3

    def loss(x, others, biases):
        first, second, head = nnx.merge(graphdef, nnx.from_flat_state({**others, **biases}))
        rows = embedding[jnp.array([0, 1, 0])]
        return jnp.sum(jnp.sin(head(second(first(x, rows, None), rows, None))))

    def sums_over_images(*arguments: int) -> list[tuple[int, ...]]:
        return large_sums(jax.jit(jax.grad(loss, arguments)).lower(x, others, biases).compile(), 16 * 16 * 8)

    assert sums_over_images(0, 1, 2) == sums_over_images(0, 1)
