"""Resampling against the published functions' numbers, and in one and three dimensions against two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn.convolution import Conv, convolve, convolve_doubled, same
from sdelab.nn.resampling import (
    PLAIN,
    check_taps,
    convolve_downsample,
    downsample,
    filter_down,
    filter_up,
    upsample,
    upsample_convolve,
)

TAPS = {"1331": (1, 3, 3, 1), "11": (1, 1), "121": (1, 2, 1)}
FUNCTIONS = {
    "upsample_2d": lambda x, w, taps: upsample(x, taps),
    "downsample_2d": lambda x, w, taps: downsample(x, taps),
    "upsample_conv_2d": upsample_convolve,
    "conv_downsample_2d": convolve_downsample,
}


@pytest.fixture(scope="module")
def published(load_fixture):
    return load_fixture("B_nets/jax_fir_resample")


@pytest.mark.parametrize(
    "name",
    [f"{function}/1331" for function in FUNCTIONS]
    + ["upsample_2d/11", "downsample_2d/11", "conv_downsample_2d/11", "upsample_2d/121", "downsample_2d/121"],
)
def test_published_numbers(published, name):
    function, taps = name.split("/")
    out = jax.jit(FUNCTIONS[function], static_argnums=2)(published["x"], published["w"], TAPS[taps])
    assert np.max(np.abs(out - published[name])) <= 1e-6 * np.max(np.abs(published[name]))


def test_plain_taps_are_nearest_neighbour_and_average(published):
    x = jnp.asarray(published["x"])
    np.testing.assert_allclose(upsample(x), published["naive_upsample_2d"], rtol=1e-6)
    np.testing.assert_allclose(downsample(x), published["naive_downsample_2d"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 1), (2, 1), (1, 2, 4, 2, 1, 3)])
@pytest.mark.parametrize(("padding", "factor"), [((0, 0), 1), ((2, 1), 2), ((1, 3), 3), ((-1, 1), 2), ((4, -2), 1)])
def test_filters_are_zeros_inserted_and_a_convolution(taps, padding, factor):
    x = np.random.RandomState(0).normal(size=9)
    normalised = np.asarray(taps) / np.sum(taps)

    def padded(z):
        z = np.concatenate([np.zeros(max(padding[0], 0)), z, np.zeros(max(padding[1], 0))])
        return z[max(-padding[0], 0) : len(z) - max(-padding[1], 0)]

    inserted = np.zeros(9 * factor)
    inserted[::factor] = x
    up = np.convolve(padded(inserted), factor * normalised, mode="valid")
    down = np.convolve(padded(x), normalised, mode="valid")[::factor]
    signal = jnp.asarray(x, jnp.float32)[None, :, None]
    np.testing.assert_allclose(filter_up(signal, taps, padding=padding, factor=factor)[0, :, 0], up, atol=1e-6)
    np.testing.assert_allclose(filter_down(signal, taps, padding=padding, factor=factor)[0, :, 0], down, atol=1e-6)


@pytest.mark.parametrize("function", [upsample, downsample])
def test_axes_are_filtered_one_by_one(function):
    factors = [np.random.RandomState(i).normal(size=n).astype(np.float32) for i, n in enumerate((6, 4, 8))]
    volume = jnp.asarray(np.einsum("i,j,k->ijk", *factors))[None, ..., None]
    parts = [np.asarray(function(jnp.asarray(f)[None, :, None], (1, 3, 3, 1)))[0, :, 0] for f in factors]
    out = function(volume, (1, 3, 3, 1))[0, ..., 0]
    np.testing.assert_allclose(out, np.einsum("i,j,k->ijk", *parts), rtol=1e-4, atol=1e-5)


def test_the_dtype_is_the_input_s():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    assert upsample(x, (1, 3, 3, 1)).dtype == downsample(x, (1, 3, 3, 1)).dtype == jnp.bfloat16


def test_a_constant_stays_constant_inside():
    x = jnp.full((1, 8, 8, 1), 3.0)
    np.testing.assert_allclose(upsample(x, (1, 3, 3, 1))[:, 1:-1, 1:-1], 3.0, rtol=1e-6)
    np.testing.assert_allclose(downsample(x, (1, 3, 3, 1))[:, 1:-1, 1:-1], 3.0, rtol=1e-6)
    np.testing.assert_array_equal(upsample(x, PLAIN), 3.0)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_convolution_of_doubled_pixels_needs_no_doubled_image(dims, size):
    random = np.random.RandomState(0)
    with jax.enable_x64(True):
        x = jnp.asarray(random.normal(size=(2, *(5, 4, 3)[:dims], 3)))
        kernel = jnp.asarray(random.normal(size=(size,) * dims + (3, 2)))

        def on_doubled(x, kernel):
            return convolve(upsample(x), kernel, padding=same(size, dims))

        expected, pull = jax.vjp(on_doubled, x, kernel)
        out, pull_short = jax.vjp(convolve_doubled, x, kernel)
        cotangent = jnp.asarray(random.normal(size=expected.shape))
        for ours, theirs in zip((out, *pull_short(cotangent)), (expected, *pull(cotangent)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_its_kernel_is_summed_before_it_is_rounded():
    x = jnp.asarray([[[0.0], [256.0], [0.0]]], jnp.bfloat16)
    kernel = jnp.asarray([0.0, 1.0 + 2**-9, -1.0], jnp.float32).reshape(3, 1, 1)  # in bfloat16 the second entry is 1
    out = convolve_doubled(x, kernel)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out[0, :, 0], [0.0, -256.0, 0.5, 256.0, 0.0, 0.0])


def test_a_layer_that_changes_the_shape_has_none():
    conv = Conv(1, 1, stride=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"stride = 2 .* keeps the shape"):
        conv.linear_of_doubled(jnp.zeros((1, 4, 4, 1)))


@pytest.mark.parametrize("taps", [(1,), (1.0, -1.0), (1.0, float("nan"))])
def test_what_is_no_filter_is_refused(taps):
    with pytest.raises(ValueError, match=r"fir = .* two or more finite numbers"):
        check_taps(fir=taps)
