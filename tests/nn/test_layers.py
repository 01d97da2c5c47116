"""Layers against their formulas in NumPy, and the split of a module into function and parameters."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn import MLP, UNet, as_function
from sdelab.nn.activation import swish
from sdelab.nn.convolution import Conv
from sdelab.nn.layers import GroupNorm, at_least, dropout, fourier_features, multiply_add
from sdelab.nn.unet import Attention, _merge_patches, _split_patches
from tests.nn.compiled import large_sums


def test_group_norm_is_flax_s_followed_by_scale_and_shift():
    random = np.random.RandomState(0)
    x = jnp.asarray(3.0 + 2.0 * random.normal(size=(3, 4, 5, 24)), jnp.float32)
    modulation = jnp.asarray(random.normal(size=(3, 48)), jnp.float32)
    ours, theirs = GroupNorm(24), nnx.GroupNorm(24, 8, epsilon=1e-5, use_fast_variance=False, rngs=nnx.Rngs(0))
    for norm in (ours, theirs):
        norm.scale[...] = jnp.linspace(0.5, 1.5, 24)
        norm.bias[...] = jnp.linspace(-1.0, 1.0, 24)
    scale, shift = (np.asarray(m)[:, None, None, :] for m in np.split(modulation, 2, axis=1))
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours(x, modulation), theirs(x) * (1 + scale) + shift, rtol=1e-5, atol=1e-5)


def test_group_norm_of_parts_is_that_of_all_channels_together():
    random = np.random.RandomState(0)
    parts = tuple(jnp.asarray(2.0 + random.normal(size=(3, 4, 5, n)), jnp.float32) for n in (10, 6, 8))
    norm = GroupNorm(24, groups=4)  # of six channels: across the parts' borders
    norm.scale[...] = jnp.linspace(0.5, 1.5, 24)
    gain, shift = norm.gain_and_shift(parts)
    whole = jnp.concatenate(parts, axis=-1)
    np.testing.assert_allclose(multiply_add(whole, gain, shift), norm(whole), rtol=1e-5, atol=1e-5)


def test_swish_and_two_derivatives_are_its_closed_form_s():
    x = jnp.linspace(-90.0, 90.0, 721)
    z = np.asarray(x, np.float64)
    logistic = 1.0 / (1.0 + np.exp(-z))
    rest = np.exp(-z) * logistic
    first = logistic * (1.0 + z * rest)
    second = logistic * rest * (2.0 + z * (rest - logistic))
    np.testing.assert_allclose(swish(x), z * logistic, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(jax.vmap(jax.grad(swish))(x), first, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(jax.vmap(jax.grad(jax.grad(swish)))(x), second, rtol=1e-5, atol=5e-7)
    forward = jax.jvp(lambda x: jax.jvp(swish, (x,), (jnp.ones_like(x),))[1], (x,), (jnp.ones_like(x),))[1]
    np.testing.assert_allclose(forward, second, rtol=1e-5, atol=5e-7)


def test_group_norm_of_an_offset_is_that_of_the_sum():
    random = np.random.RandomState(0)
    norm, x = GroupNorm(24, groups=4), 2.0 + random.normal(size=(3, 4, 5, 24))
    norm.scale[...], norm.bias[...] = jnp.linspace(0.5, 1.5, 24), jnp.linspace(-1.0, 1.0, 24)
    for size in (1.0, 300.0):  # of 300, whose square has a rounding error of 5e-3, the variance loses nothing either
        offset = size * random.normal(size=(3, 24))
        total = (x + offset[:, None, None, :]).reshape(3, 20, 4, 6)
        expected = (total - total.mean((1, 3), keepdims=True)) / np.sqrt(total.var((1, 3), keepdims=True) + 1e-5)
        expected = expected.reshape(x.shape) * np.linspace(0.5, 1.5, 24) + np.linspace(-1.0, 1.0, 24)
        out = norm(jnp.asarray(x, jnp.float32), offset=jnp.asarray(offset, jnp.float32))
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    out = norm(jnp.asarray(x, jnp.float32), offset=jnp.full((1, 24), 300.0, jnp.float32))
    # a rounding of 300 is 1.5e-5 here; in the variance a sum of images would be off by 1e-2
    np.testing.assert_allclose(out, norm(jnp.asarray(x, jnp.float32)), rtol=0, atol=6e-5)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("adaptive", [False, True])
def test_derivatives_of_a_norm_with_an_offset_are_those_of_the_norm_of_the_sum(dims, adaptive):
    random = np.random.RandomState(dims)
    norm, shape = GroupNorm(12, groups=3), (2, *(3, 4, 2)[:dims], 12)
    norm.scale[...], norm.bias[...] = jnp.linspace(0.5, 1.5, 12), jnp.linspace(-1.0, 1.0, 12)
    x, offset, modulation, dx, doffset, cotangent = (
        jnp.asarray(random.normal(size=s), jnp.float32) for s in (shape, (2, 12), (2, 24), shape, (2, 12), shape)
    )

    def folded(x, offset):
        return norm(x, modulation if adaptive else None, offset=offset)

    def added(x, offset):
        return norm(x + offset.reshape((2,) + (1,) * dims + (12,)), modulation if adaptive else None)

    for ours, explicit in zip(
        jax.jvp(folded, (x, offset), (dx, doffset)), jax.jvp(added, (x, offset), (dx, doffset)), strict=True
    ):
        np.testing.assert_allclose(ours, explicit, rtol=0, atol=2e-5)
    for ours, explicit in zip(*(jax.vjp(f, x, offset)[1](cotangent) for f in (folded, added)), strict=True):
        np.testing.assert_allclose(ours, explicit, rtol=0, atol=2e-5)


def test_an_offset_is_not_rounded_to_the_image_s_bfloat16():
    x = jnp.asarray(np.random.RandomState(0).normal(size=(1, 8, 8, 8)), jnp.bfloat16)
    offset = jnp.linspace(-1.0, 1.0, 8)[None, :] / 300.0 + 100.0  # the same in bfloat16 for all channels
    expected = GroupNorm(8, groups=1)(x.astype(jnp.float32), offset=offset)
    np.testing.assert_allclose(
        GroupNorm(8, groups=1)(x, offset=offset).astype(jnp.float32), expected, rtol=2**-8, atol=1e-4
    )


def test_offset_and_parameters_of_a_norm_have_gradients_without_passes_over_the_image():
    norm, x, offset = GroupNorm(8), jnp.ones((3, 16, 16, 8)), jnp.zeros((3, 8))
    apply, params = as_function(norm)

    def loss(x, params, offset):
        return jnp.sum(jnp.sin(apply(params, x, offset=offset)))

    def sums_over_images(*arguments: int) -> list[tuple[int, ...]]:
        return large_sums(jax.jit(jax.grad(loss, arguments)).lower(x, params, offset).compile(), x.size)

    assert sums_over_images(0, 1, 2) == sums_over_images(0)
    assert set(sums_over_images(0)) == {(3, 8)}


def test_a_norm_s_image_meets_one_gain_and_one_shift():
    """Parameters, modulation, offset and statistics are not put together again for every pixel of an activated image, on CPU."""
    apply, params = as_function(GroupNorm(8))

    def activated(params, x, modulation, offset):
        return jax.nn.silu(apply(params, x, modulation, offset=offset))

    arguments = (params, jnp.ones((3, 16, 16, 8)), jnp.ones((3, 16)), jnp.ones((3, 8)))
    text = jax.jit(activated).lower(*arguments).compile().as_text()
    (image,) = re.findall(r"ROOT %[\w.]+ = f32\[3,16,16,8\]\S* fusion\(([^)]*)\)", text)
    assert len(image.split(",")) == 3


def test_convolution_scales_its_kernel():
    conv = Conv(3, 5, bias_init=nnx.initializers.ones_init(), rngs=nnx.Rngs(params=0))
    x = jnp.asarray(np.random.RandomState(0).normal(size=(2, 4, 6, 3)), jnp.float32)
    np.testing.assert_allclose(conv.linear(x, scale=0.5), 0.5 * (conv(x) - 1.0), rtol=1e-5, atol=1e-6)


def test_group_norm_has_statistics_in_float32_for_bfloat16_images():
    x = jnp.asarray(100.0 + np.random.RandomState(0).normal(size=(1, 64, 64, 8)), jnp.bfloat16)
    out = np.asarray(GroupNorm(8)(x), np.float32)
    # the rounding of x itself, 0.25 at 100, stays; sums in bfloat16 would be off by whole units
    np.testing.assert_allclose(out.mean((1, 2)), 0.0, atol=0.02)
    np.testing.assert_allclose(out.std((1, 2)), 1.0, atol=0.02)


def test_merging_and_splitting_patches_are_inverse_and_local():
    x = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    merged = _merge_patches(x)
    np.testing.assert_array_equal(_split_patches(merged), x)
    np.testing.assert_array_equal(merged[1, 1, 2].reshape(2, 2, 3), x[1, 2:4, 4:6])


def test_attention_is_the_formula_over_all_pixels():
    layer = Attention(16, 8, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(params=0))
    layer.out.kernel[...] = jnp.eye(16)
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 16))
    kernel, normed = np.asarray(layer.query_key_value.kernel[...]), np.asarray(layer.norm(x)).reshape(2, 12, 16)
    query, key, value = (
        (normed @ part).reshape(2, 12, 2, 8).transpose(0, 2, 1, 3) for part in np.split(kernel, 3, axis=1)
    )
    weights = np.exp(query @ key.transpose(0, 1, 3, 2) / np.sqrt(8))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ value
    np.testing.assert_allclose(layer(x) - x, mixed.transpose(0, 2, 1, 3).reshape(x.shape), rtol=1e-4, atol=1e-5)


def test_fourier_features_tell_noise_levels_apart_and_are_smooth():
    c = jnp.linspace(-3.0, 2.0, 2001)  # the labels of all processes, in steps of 1 % in sigma
    features = np.asarray(fourier_features(c, 64))
    np.testing.assert_allclose((features**2).sum(1), 32.0, rtol=1e-5)  # cos² + sin²
    step = np.linalg.norm(np.diff(features, axis=0), axis=1)
    assert step.max() < 0.05 * np.sqrt(64)
    # no two distant levels share their features
    distance = np.linalg.norm(features[::40, None] - features[None, ::40], axis=-1) + 100 * np.eye(51)
    assert distance.min() > step.max()


def test_dropout_keeps_the_mean_and_drops_the_rate():
    keys = jax.random.split(jax.random.key(0), 64)
    out = dropout(jnp.ones((64, 40, 40)), 0.1, keys, layer=0)
    dropped = float(jnp.mean(out == 0.0))
    assert abs(dropped - 0.1) < 4 * np.sqrt(0.09 / out.size)
    assert abs(float(jnp.mean(out)) - 1.0) < 4 * np.sqrt(0.1 / 0.9 / out.size)
    assert not np.array_equal(dropout(jnp.ones((64, 40, 40)), 0.1, keys, layer=1), out)


def test_two_numbers_of_a_word_are_uniform_and_independent():
    key, shape = jax.random.key(3), (2001, 50)  # an odd side: half of the last words is not used
    above = np.stack([np.asarray(at_least(2**8 * part, key, shape)) for part in range(257)])
    assert above.shape == (257, *shape)
    assert above[0].all()
    assert not above[-1].any()
    numbers = above[1:].sum(axis=0)  # the first eight bits
    for part in (numbers[:1001], numbers[1001:]):
        counts = np.bincount(part.ravel(), minlength=256)
        expected = part.size / 256
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 4 * np.sqrt(2 * 255)  # chi squared
    halves = np.corrcoef(numbers[:1000].ravel(), numbers[1001:].ravel())
    assert abs(halves[0, 1]) < 4 / np.sqrt(50_000)


def test_parameters_are_a_nested_dict_with_names_and_nothing_else_is_kept():
    for build in (
        lambda: MLP(2, classes=3, dropout=0.1, rngs=nnx.Rngs(params=0)),
        lambda: UNet(1, dropout=0.1, rngs=nnx.Rngs(params=0)),
    ):
        _, params = as_function(nnx.eval_shape(build))
        for path, leaf in jax.tree.leaves_with_path(params):
            assert all(isinstance(entry, jax.tree_util.DictKey) and isinstance(entry.key, str) for entry in path)
            assert isinstance(leaf, jax.ShapeDtypeStruct)


def test_equal_networks_share_one_compilation_and_different_ones_do_not():
    traces = []

    @jax.jit
    def evaluate(apply, params):
        traces.append(None)
        return apply(params, jnp.ones((1, 2)), jnp.zeros((1,)))

    def call(**settings):
        apply, params = as_function(MLP(2, width=16, depth=1, rngs=nnx.Rngs(params=0), **settings))
        return evaluate(jax.tree_util.Partial(apply), params)

    call()
    call()
    assert len(traces) == 1
    call(dropout=0.1)
    assert len(traces) == 2


def test_a_seed_is_a_network():
    first, second, other = (as_function(MLP(2, rngs=nnx.Rngs(params=seed)))[1] for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
    assert not np.array_equal(first["first"]["kernel"], other["first"]["kernel"])


def test_a_module_with_state_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"BatchNorm holds state beside its parameters"):
        as_function(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
