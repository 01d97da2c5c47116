"""EDM's block and convolutions alone, against the published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.interop.edm import interleaved, locator
from sdelab.interop.placement import place
from sdelab.nn import ADM, SongUNet, as_function
from sdelab.nn.adm import adm_style
from sdelab.nn.convolution import convolve, same
from sdelab.nn.edm_block import EDMBlock
from sdelab.nn.edm_embedding import angles, cosines_sines, sines_cosines
from sdelab.nn.features import Features
from sdelab.nn.resampling import convolve_downsample, downsample, upsample, upsample_convolve
from sdelab.nn.song_unet import song_style
from tests.nn.edm_cases import assert_close, load

FIR = (1, 3, 3, 1)
BLOCKS = {
    "adaptive_down_heads4": (32, adm_style(1, lambda _: 4), {"resample": downsample, "heads": 4}),
    "adaptive_up_noproj": (16, adm_style(1, lambda _: 0), {"resample": upsample}),
    "plain_up_fir": (16, song_style(FIR), {"resample": upsample}),
}


def arrays_of(kind, name):
    arrays, _, _ = load("edm_blocks")
    prefix = f"{kind}.{name}."
    return {key.removeprefix(prefix): jnp.asarray(a) for key, a in arrays.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name):
    a = arrays_of("block", name)
    width, style, options = BLOCKS[name]
    block = nnx.eval_shape(lambda: EDMBlock(16, width, 24, style, rngs=nnx.Rngs(params=0), **options))
    graphdef, variables = nnx.split(block)
    # as if it were the first block of a network for 16 x 16 images
    weights = {
        f"enc.16x16_block0.{key.removeprefix('param:')}": np.asarray(value)
        for key, value in a.items()
        if key.startswith("param:") and "filter" not in key
    }
    _, shapes = as_function(block)
    settings = {"image_size": 16, "channels": 16, "multipliers": (1,), "attention_resolutions": ()}
    network = nnx.eval_shape(lambda: ADM(3, **settings, rngs=nnx.Rngs(params=0)))
    params = place(weights, {"backbone": {"encoder": {"level0_block0": shapes}}}, locator(network))
    own = params["backbone"]["encoder"]["level0_block0"]
    nnx.replace_by_pure_dict(variables, jax.tree.map(jnp.asarray, own))
    out = jax.jit(lambda x, e: nnx.merge(graphdef, variables)(Features.of(x), e, None).whole())(a["x"], a["emb"])
    assert_close(out, a["out"], 1e-5)


def test_of_an_asymmetric_filter_the_ways_down_and_up_are_adjoint():
    """As `conv2d` and `conv_transpose2d` of one filter are, which the published code calls."""
    rngs, taps = nnx.Rngs(params=0), (1, 2, 3, 4)
    down, up = (EDMBlock(4, 4, 8, song_style(taps), resample=r, rngs=rngs)._resample for r in (downsample, upsample))
    random = np.random.RandomState(0)
    large, small = (jnp.asarray(random.normal(size=(2, side, side, 4)), jnp.float32) for side in (8, 4))
    np.testing.assert_allclose(jnp.sum(up(small) * large), 4.0 * jnp.sum(small * down(large)), rtol=1e-5)
    _, pull = jax.vjp(up, small)
    np.testing.assert_allclose(pull(large)[0], 4.0 * down(large), rtol=1e-5, atol=1e-5)


TAPS = (1, 2, 3, 4)


def correlated(x):
    """The taps in their order over every second place of the padded image, as `conv2d` has it."""
    padded = np.pad(np.asarray(x, np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    out = np.zeros((x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3]))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[:, i, j] = (
                np.einsum("a,b,nabc->nc", TAPS, TAPS, padded[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]) / 100.0
            )
    return out


def test_an_asymmetric_filter_meets_the_pixels_in_order_on_the_way_down():
    x = jnp.asarray(np.random.RandomState(0).normal(size=(2, 8, 8, 4)), jnp.float32)
    block = EDMBlock(4, 4, 8, song_style(TAPS), resample=downsample, rngs=nnx.Rngs(params=0))
    np.testing.assert_allclose(block._resample(x), correlated(x), rtol=0, atol=1e-6)
    sizes = {
        "image_size": 8,
        "channels": 4,
        "multipliers": (1, 1),
        "blocks": 1,
        "attention_resolutions": (),
        "fir": TAPS,
    }
    skip, residual = (
        SongUNet(4, encoder=kind, rngs=nnx.Rngs(params=0), **sizes).input for kind in ("skip", "residual")
    )
    np.testing.assert_allclose(skip.smaller(Features.of(x)).whole(), correlated(x), rtol=0, atol=1e-6)
    layer = residual.levels["level0"]
    layer.conv.kernel[...] = jnp.zeros((3, 3, 4, 4)).at[1, 1].set(jnp.eye(4))  # which changes nothing
    np.testing.assert_allclose(layer(Features.of(x)).whole(), correlated(x), rtol=0, atol=1e-6)


def kernel_of(a):
    return jnp.transpose(a["param:weight"], (2, 3, 1, 0))


def padded(x, kernel):
    return convolve(x, kernel, padding=same(kernel.shape[0], 2))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("up_k3", lambda x, a: padded(upsample(x), kernel_of(a))),
        ("up_k3_fir", lambda x, a: padded(upsample(x, FIR), kernel_of(a))),
        ("up_k3_fir_fused", lambda x, a: upsample_convolve(x, kernel_of(a), FIR)),
        ("up_k0_fir", lambda x, a: upsample(x, FIR)),
        ("down_k0", lambda x, a: downsample(x)),
        ("down_k1_fir", lambda x, a: downsample(x, FIR) @ kernel_of(a)[0, 0]),
        ("down_k3_fir", lambda x, a: padded(downsample(x, FIR), kernel_of(a))),
        ("down_k3_fir_fused", lambda x, a: convolve_downsample(x, kernel_of(a), FIR)),
    ],
)
def test_resampled_convolutions(name, layer):
    a = arrays_of("conv", name)
    out = jax.jit(layer)(a["x"], a)
    assert_close(out + a["param:bias"].reshape(1, 1, 1, -1) if "param:bias" in a else out, a["out"], 1e-5)


def test_features_of_the_noise_level():
    a = arrays_of("posemb", "x") | load("edm_blocks")[0]
    c = jnp.asarray(a["posemb.x"])
    np.testing.assert_allclose(cosines_sines(angles(c, 8, 8)), a["posemb.endpoint_False_16"], atol=1e-6)
    np.testing.assert_allclose(cosines_sines(angles(c, 8, 7)), a["posemb.endpoint_True_16"], atol=1e-6)
    np.testing.assert_array_equal(sines_cosines(c[:, None]), jnp.roll(cosines_sines(c[:, None]), 1, axis=1))


def test_query_key_value_are_separated():
    published = np.arange(12).reshape(4, 3)  # channel by channel: query, key, value
    np.testing.assert_array_equal(interleaved(published.reshape(12)), published.T.reshape(12))
