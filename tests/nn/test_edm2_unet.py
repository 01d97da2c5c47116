"""EDM2's network: published sizes, magnitudes, and one network in one, two and three dimensions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn import EDM2_SIZES, EDM2UNet, as_function, normalize_weights
from sdelab.nn.edm2_blocks import DecoderBlock

SMALL = {"channels": 16, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,), "head_size": 8}


@functools.cache
def randomised(image_channels=1, image_size=8, *, gain=1.0, **settings):
    """Function and parameters: weights as initialised, all gains at `gain`, so that every path carries a signal."""
    build = functools.partial(EDM2UNet, image_channels, image_size, **{**SMALL, **settings})
    apply, shapes = as_function(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(params=0))))
    random = np.random.RandomState(7)

    def draw(path, shape):
        if path[-1].key == "gain":
            return jnp.asarray(gain, shape.dtype)
        scale = 1.0 if path[-1].key == "weight" else 2 * np.pi
        return jnp.asarray(scale * random.normal(size=shape.shape), shape.dtype)

    return jax.jit(apply), jax.tree.map_with_path(draw, shapes)


def noise(seed, *shape):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), jnp.float32)


def rms(x):
    return float(jnp.sqrt(jnp.mean(jnp.square(x))))


def close(actual, desired, tolerance=1e-5):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * float(np.max(np.abs(desired))))


@pytest.mark.parametrize(
    ("size", "millions"), [("XS", 125), ("S", 280), ("M", 498), ("L", 777), ("XL", 1119), ("XXL", 1523)]
)
def test_published_sizes_have_the_published_numbers_of_parameters(size, millions):
    """Karras et al. (2024), table 2, for ImageNet-512 in latents of 64 x 64 x 4."""
    build = functools.partial(EDM2UNet, 4, 64, classes=1000, **EDM2_SIZES[size])
    _, params = as_function(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(params=0))))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6) == millions


def test_multipliers_multiply_the_channels():
    def shapes(**settings):
        build = functools.partial(EDM2UNet, 1, 8, blocks=1, attention_resolutions=(4,), head_size=8, **settings)
        return as_function(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(params=0))))

    assert shapes(channels=8, multipliers=(2, 4)) == shapes(channels=16, multipliers=(1, 2))


def test_activations_keep_unit_magnitude_in_every_block_with_the_gains_at_their_start():
    apply, params = randomised(3, 32, channels=64, blocks=1, attention_resolutions=(16,), head_size=64, gain=0.0)
    magnitudes = []

    def watch(block, *arguments):
        out = block(*arguments)
        magnitudes.append((block.attention is not None, jnp.sqrt(jnp.mean(out**2))))
        return out

    @jax.jit
    def evaluate(params, x, c):
        network = nnx.merge(apply.__wrapped__._graphdef, params)
        network._run = watch
        out = network(x, c)
        return jnp.sqrt(jnp.mean(out**2)), [m for _, m in magnitudes]

    params = {**params, "gain": jnp.asarray(1.0)}
    last, values = evaluate(params, noise(1, 2, 32, 32, 3), jnp.asarray([-1.0, 0.5]))
    np.testing.assert_allclose(last, 1.0, atol=0.15)
    assert len(values) == 10
    # an average of independent values is less than they are: attention lets go, and later blocks make it up
    low = [0.8 if attention else 0.85 for attention, _ in magnitudes]
    assert np.all(np.asarray(values) > low)
    assert np.all(np.asarray(values) < 1.15)


def test_a_new_network_is_zero_whatever_its_gains_in_the_blocks():
    apply, params = randomised(classes=3)
    params = {**params, "gain": jnp.asarray(0.0)}
    out = apply(params, noise(1, 2, 8, 8, 1), jnp.zeros((2,)), jnp.asarray([0, 2]))
    np.testing.assert_array_equal(out, jnp.zeros((2, 8, 8, 1)))

    @jax.jit
    def initial_gains():
        _, built = as_function(
            EDM2UNet(1, 8, **{**SMALL, "multipliers": (1,), "attention_resolutions": ()}, rngs=nnx.Rngs(params=0))
        )
        return [leaf for path, leaf in jax.tree.leaves_with_path(built) if path[-1].key == "gain"]

    gains = initial_gains()
    assert len(gains) == 6  # the output's, and one a block
    assert not any(np.any(gain) for gain in gains)


def test_forced_normalisation_keeps_the_whole_network():
    """Weights of any scale: the function is that of the normalised ones, gains and frequencies are left alone."""
    apply, params = randomised(classes=3)
    x, c, label = noise(1, 2, 8, 8, 1), jnp.asarray([-1.0, 0.5]), jnp.asarray([0, 2])
    scaled = jax.tree.map_with_path(lambda path, p: 3.0 * p if path[-1].key == "weight" else p, params)
    normal = jax.jit(normalize_weights)(scaled)
    close(apply(scaled, x, c, label), apply(params, x, c, label), 3e-3)
    close(apply(normal, x, c, label), apply(params, x, c, label), 3e-3)
    for name in ("frequencies", "phases"):
        np.testing.assert_array_equal(normal["fourier"][name], params["fourier"][name])
    np.testing.assert_array_equal(normal["gain"], params["gain"])


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_with_kernels_that_do_not_look_along_an_axis_a_constant_axis_is_no_axis(dims):
    """Of images that are constant along a first axis: a network in n dimensions is the one in n - 1."""
    few, flat = randomised(classes=3, dims=dims - 1)
    more, shapes = randomised(classes=3, dims=dims)

    def embed(weight, shape):
        if weight.shape == shape.shape:
            return weight
        # where the root mean square over all inputs stays, the weight is used as it was
        full = jnp.zeros_like(shape).at[1].set(weight)
        return full * np.sqrt(3.0)

    x, c, label = noise(1, 2, *(8,) * (dims - 1), 1), jnp.asarray([-1.0, 0.5]), jnp.asarray([0, 2])
    out = more(jax.tree.map(embed, flat, shapes), jnp.repeat(x[:, None], 4, axis=1), c, label)
    close(out, jnp.repeat(few(flat, x, c, label)[:, None], 4, axis=1), 1e-4)


def test_what_does_not_fit_is_refused():
    rngs = nnx.Rngs(params=0)
    network = nnx.eval_shape(lambda: EDM2UNet(1, 8, **SMALL, rngs=nnx.Rngs(params=0)))
    with pytest.raises(ValueError, match="multiples of 2"):
        network(jnp.zeros((1, 7, 8, 1)), jnp.zeros((1,)))
    with pytest.raises(ValueError, match=r"head_size = 5 .* its 3 heads must divide the 16 channels"):
        EDM2UNet(1, 8, channels=16, multipliers=(1,), attention_resolutions=(8,), head_size=5, rngs=rngs)
    with pytest.raises(ValueError, match=r"label_dropout = 0\.1 is not accepted without labels"):
        EDM2UNet(1, 8, label_dropout=0.1, rngs=rngs)
    with pytest.raises(ValueError, match=r"attention_resolutions = \(16, 5\) .* resolutions 16, 8"):
        EDM2UNet(1, 16, multipliers=(1, 2), attention_resolutions=(16, 5), rngs=rngs)
    with pytest.raises(ValueError, match=r"image_size = 10 .* multiple of 4"):
        EDM2UNet(1, 10, multipliers=(1, 2, 2), rngs=rngs)
    with pytest.raises(ValueError, match="dims = 4"):
        EDM2UNet(1, 8, dims=4, rngs=rngs)
    with pytest.raises(ValueError, match="multipliers = 0"):
        EDM2UNet(1, 8, multipliers=(1, 0), rngs=rngs)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_block_goes_up_without_a_doubled_image(dims):
    """Against the block of an image that was doubled before: the same output and gradients, and fewer operations."""

    def block(up):
        settings = {"dtype": jnp.float32, "param_dtype": jnp.float32, "rngs": nnx.Rngs(params=0)}
        made = DecoderBlock(
            6, 6, 5, attention=False, head_size=8, balances=(0.3, 0.3), dims=dims, number=0, rate=0.0, up=up, **settings
        )
        made.residual.gain[...] = jnp.asarray(0.7)
        return nnx.split(made)

    def doubled(h):
        for axis in range(1, dims + 1):
            h = jnp.repeat(h, 2, axis=axis)
        return h

    h, embedding, cotangent = noise(3, 2, *(4,) * dims, 6), noise(4, 2, 5), noise(5, 2, *(8,) * dims, 6)

    def run(up):
        graph, params = block(up)

        def evaluate(params, h):
            out = nnx.merge(graph, params)(h if up else doubled(h), embedding, None)
            return out, jnp.vdot(out, cotangent)

        gradients = jax.jit(jax.value_and_grad(lambda *a: evaluate(*a)[::-1], argnums=(0, 1), has_aux=True))
        compiled = gradients.lower(params, h).compile()
        return compiled(params, h), compiled.cost_analysis()["flops"]

    (short, fewer), (plain, flops) = run(True), run(False)
    for ours, theirs in zip(jax.tree.leaves(short), jax.tree.leaves(plain), strict=True):
        close(ours, theirs)
    assert fewer < flops
