"""The diffusion transformer: published sizes and initial values, what its positions mean, and what its batch does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn import DIT_SIZES, DiT, NoPositions, RotaryPositions, SinCosPositions, as_function
from sdelab.nn.dit import layer_norm
from sdelab.nn.edm_embedding import angles, cosines_sines
from sdelab.nn.patches import patchify, unpatchify

SMALL = {"patch": 2, "width": 32, "depth": 2, "heads": 2}


@functools.cache
def randomised(image_channels=1, **settings):
    """Function and parameters with no zeros, as initialisation has them: every path carries a signal."""
    build = functools.partial(DiT, image_channels, **{**SMALL, **settings})
    apply, shapes = as_function(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(params=0))))
    random = np.random.RandomState(7)
    return jax.jit(apply), jax.tree.map(lambda s: jnp.asarray(0.2 * random.normal(size=s.shape), s.dtype), shapes)


@functools.cache
def initial():
    """A network as it is initialised, large enough for statistics."""

    def build():
        return DiT(3, patch=4, width=192, depth=1, heads=3, classes=50, rngs=nnx.Rngs(params=0))

    return nnx.merge(nnx.graphdef(nnx.eval_shape(build)), jax.jit(lambda: as_function(build())[1])())


def test_the_hidden_width_is_rounded_down_as_published():
    network = nnx.eval_shape(lambda: DiT(1, **SMALL | {"width": 48}, mlp_ratio=2.7, rngs=nnx.Rngs(params=0)))
    assert network.blocks["block0"].hidden.out_features == 129  # of 129.6


def inputs(batch=4, space=(4, 6), channels=1):
    x = jax.random.normal(jax.random.key(1), (batch, *space, channels))
    return x, jnp.linspace(-2.0, 1.5, batch), jnp.arange(batch) % 3


def close(actual, desired, tolerance=1e-5):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * float(np.max(np.abs(desired))))


@pytest.mark.parametrize(
    ("size", "count"), [("S", 32_963_360), ("B", 130_512_416), ("L", 458_102_816), ("XL", 675_129_632)]
)
def test_published_sizes_have_the_published_numbers_of_parameters(size, count):
    """33, 130, 458 and 675 million (Peebles and Xie, table 4), and 675 129 632 for XL/2 as its training code prints.

    Twice the latent's 4 channels come out, and the published table of positions, 256 tokens, is a parameter.
    """
    build = functools.partial(DiT, 4, patch=2, classes=1000, out_channels=8, **DIT_SIZES[size])
    _, params = as_function(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(params=0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) + 256 * DIT_SIZES[size]["width"] == count


@pytest.mark.parametrize(("space", "patch"), [((12,), (3,)), ((4, 6), (2, 3)), ((4, 6, 2), (2, 3, 1))])
def test_patches_are_what_their_slices_hold_in_reading_order(space, patch):
    x = np.random.RandomState(0).normal(size=(2, *space, 3)).astype(np.float32)
    patches = patchify(jnp.asarray(x), patch)
    grid = tuple(s // p for s, p in zip(space, patch, strict=True))
    assert patches.shape[1:-1] == grid
    for index in np.ndindex(*grid):
        here = tuple(slice(i * p, (i + 1) * p) for i, p in zip(index, patch, strict=True))
        np.testing.assert_array_equal(patches[1][index], x[1][here].reshape(-1))
    np.testing.assert_array_equal(unpatchify(patches, patch), x)


def test_a_patch_embedding_is_the_strided_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    kernel = initial().first.kernel[...].reshape(4, 4, 3, 192)
    strided = jax.lax.conv_general_dilated(x, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    close(initial().first(patchify(x, (4, 4))), strided)


def test_initial_values_are_the_published_ones():
    network = initial()
    block = network.blocks["block0"]
    for layer in (network.first, block.query_key_value, block.out, block.hidden, block.mlp_out):
        bound = np.sqrt(6.0 / sum(layer.kernel.shape))  # xavier, uniform
        assert 0.99 * bound < np.max(np.abs(layer.kernel[...])) <= bound
        np.testing.assert_allclose(np.std(layer.kernel[...]), bound / np.sqrt(3), rtol=0.03)
    embedding = network.embedding
    for weight in (embedding.first.kernel, embedding.second.kernel, embedding.label):
        np.testing.assert_allclose(np.std(weight[...]), 0.02, rtol=0.03)
    for layer in (block.modulation, network.modulation, network.last):
        assert not np.any(layer.kernel[...])
    biases = [leaf for path, leaf in jax.tree.leaves_with_path(as_function(network)[1]) if path[-1].key == "bias"]
    assert len(biases) == 10
    assert not any(np.any(bias) for bias in biases)


def test_a_new_block_is_the_identity_and_a_new_network_is_zero():
    h = jax.random.normal(jax.random.key(0), (2, 3, 3, 192))
    embedding = jax.random.normal(jax.random.key(1), (2, 192))
    np.testing.assert_array_equal(nnx.jit(lambda block: block(h, embedding, None))(initial().blocks["block0"]), h)
    x, c, label = inputs(space=(8, 12), channels=3)
    out = nnx.jit(lambda network: network(x, c, label))(initial())
    np.testing.assert_array_equal(out, jnp.zeros_like(x))


def test_layer_norm_is_flax_s_without_parameters():
    h = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (5, 24))
    theirs = nnx.LayerNorm(24, epsilon=1e-6, use_bias=False, use_scale=False, use_fast_variance=False, rngs=nnx.Rngs(0))
    close(layer_norm(h), theirs(h))


def test_features_of_the_time_step_are_the_published_ones():
    time = np.array([0.0, 1.0, 250.0, 999.0])
    features = np.asarray(cosines_sines(angles(jnp.asarray(time, jnp.float32), 128, 128)))
    frequencies = 10_000.0 ** (-np.arange(128) / 128)
    phases = features[:, :128] + 1j * features[:, 128:]  # [cos | sin]
    close(phases, np.exp(1j * np.outer(time, frequencies)), 1e-4)  # the float32 rounding of 999 is 6e-5


def test_the_scale_of_the_noise_label_is_a_factor():
    x, c, _ = inputs()
    (spread, params), (plain, _) = randomised(noise_scale=200.0), randomised(noise_scale=1.0)
    close(spread(params, x, c), plain(params, x, 200.0 * c))


# positions


def table(grid, width):
    return np.asarray(SinCosPositions().embed(jnp.zeros((1, *grid, width)))[0])


def test_fixed_positions_are_those_of_masked_autoencoders():
    """Columns fill the first half, rows the second, each [sin | cos]: the code of He et al. (2022)."""
    positions = table((5, 7), 32)
    frequencies = 10_000.0 ** (-np.arange(8) / 8)
    for row, column in np.ndindex(5, 7):
        parts = [part for p in (column, row) for part in (np.sin(p * frequencies), np.cos(p * frequencies))]
        np.testing.assert_allclose(positions[row, column], np.concatenate(parts), atol=1e-6)


@pytest.mark.parametrize("grid", [(9,), (4, 5), (3, 4, 5)])
def test_products_of_fixed_positions_depend_on_offsets_alone(grid):
    positions = table(grid, 32)  # in three dimensions two channels are left over
    line = np.arange(np.prod(grid)).reshape(grid)
    products = positions.reshape(-1, 32) @ positions.reshape(-1, 32).T
    shifted = tuple(slice(1, None) for _ in grid), tuple(slice(None, -1) for _ in grid)
    first, second = (line[s].ravel() for s in shifted)
    np.testing.assert_allclose(products[np.ix_(first, first)], products[np.ix_(second, second)], atol=1e-4)
    assert len(np.unique(positions.reshape(-1, 32).round(4), axis=0)) == np.prod(grid)


@pytest.mark.parametrize("grid", [(9,), (4, 5), (3, 4, 5)])
def test_rotary_scores_depend_on_offsets_alone(grid):
    """Of one query and one key, put at all positions; and nothing changes at offset zero."""
    query, key = jax.random.normal(jax.random.key(0), (2, 14))
    rotate = RotaryPositions().rotate

    def everywhere(vector):
        heads = jnp.broadcast_to(vector, (1, *grid, 1, 14))
        return np.asarray(rotate(heads)).reshape(-1, 14)

    scores = everywhere(query) @ everywhere(key).T
    np.testing.assert_allclose(np.diag(scores), float(query @ key), rtol=1e-5)
    line = np.arange(np.prod(grid)).reshape(grid)
    for axis in range(len(grid)):  # moved by one along one axis, both
        first, second = (np.take(line, range(i, grid[axis] - 1 + i), axis).ravel() for i in (0, 1))
        np.testing.assert_allclose(scores[np.ix_(first, first)], scores[np.ix_(second, second)], atol=1e-4)
    assert len(np.unique(scores[0].round(4))) == np.prod(grid)  # every offset differs from every other


def test_without_positions_tokens_are_a_set_and_with_them_they_are_not():
    x, c, label = inputs(space=(4, 4))
    tokens = patchify(x, (2, 2)).reshape(4, 4, -1)[:, jnp.asarray([2, 0, 3, 1])]
    shuffled = unpatchify(tokens.reshape(4, 2, 2, -1), (2, 2))

    def shuffle_difference(positions):
        apply, params = randomised(classes=3, positions=positions)
        out = patchify(apply(params, x, c, label), (2, 2)).reshape(4, 4, -1)[:, jnp.asarray([2, 0, 3, 1])]
        other = patchify(apply(params, shuffled, c, label), (2, 2)).reshape(4, 4, -1)
        return float(jnp.max(jnp.abs(out - other)) / jnp.max(jnp.abs(out)))

    assert shuffle_difference(NoPositions()) < 1e-5
    assert shuffle_difference(RotaryPositions()) > 1e-2
    assert shuffle_difference(SinCosPositions()) > 1e-2


def test_a_constant_image_is_the_same_everywhere_to_a_network_with_rotary_positions():
    """Equal tokens share the value of every attention, so that offsets cannot tell them apart."""
    apply, params = randomised(positions=RotaryPositions())
    patches = patchify(apply(params, jnp.ones((2, 4, 6, 1)), jnp.zeros((2,))), (2, 2))
    close(patches, jnp.broadcast_to(patches[:, :1, :1], patches.shape))
    assert float(jnp.ptp(patches[0, 0, 0])) > 1e-3  # within a patch pixels differ


def test_what_does_not_fit_is_refused():
    rngs = nnx.Rngs(params=0)
    network = nnx.eval_shape(lambda: DiT(1, **SMALL, rngs=nnx.Rngs(params=0)))
    with pytest.raises(ValueError, match=r"multiples of \(2, 2\)"):
        network(jnp.zeros((1, 4, 5, 1)), jnp.zeros((1,)))
    with pytest.raises(ValueError, match=r"takes \(batch, \*space, 1\) with 2 spatial sides"):
        network(jnp.zeros((1, 4, 4, 3)), jnp.zeros((1,)))
    with pytest.raises(ValueError, match=r"heads = 5 .* must divide the width, 384"):
        DiT(1, heads=5, rngs=rngs)
    with pytest.raises(ValueError, match=r"patch = \(2, 2\) .* one for each of 3 axes"):
        DiT(1, patch=(2, 2), dims=3, rngs=rngs)
    with pytest.raises(ValueError, match="patch = 0"):
        DiT(1, patch=0, rngs=rngs)
    with pytest.raises(ValueError, match="2 channels do not hold the positions of 2 axes"):
        RotaryPositions().rotate(jnp.zeros((1, 4, 4, 1, 2)))
    with pytest.raises(ValueError, match="base = 0"):
        RotaryPositions(base=0.0)
