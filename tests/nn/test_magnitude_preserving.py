"""Magnitudes in, magnitudes out, and what a weight without a scale implies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn import LogVariance, as_function, normalize_weights
from sdelab.nn.edm2_blocks import CosineAttention
from sdelab.nn.magnitude_preserving import MPConv, MPFourier, mp_cat, mp_silu, mp_sum, normalize_weight, pixel_norm

COUNT = 200_000


def rms(x):
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def noise(seed, *shape):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), jnp.float32)


def weights_of(build):
    """A module with standard normal weights, without compiling its initialisation."""
    graphdef, shapes = nnx.split(nnx.eval_shape(build))
    random = np.random.RandomState(0)
    return nnx.merge(graphdef, jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape), s.dtype), shapes))


def test_silu_of_a_standard_normal_has_unit_magnitude():
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    square = np.asarray(mp_silu(jnp.asarray(points, jnp.float32)), np.float64) ** 2
    np.testing.assert_allclose(np.sum(weights * square) / np.sqrt(2 * np.pi), 1.0, rtol=2e-3)  # 0.596 has three digits


@pytest.mark.parametrize("balance", [0.0, 0.3, 0.5, 1.0])
def test_sums_keep_the_magnitude_and_share_it_as_told(balance):
    a, b = noise(0, COUNT), noise(1, COUNT)
    total = mp_sum(a, b, balance)
    np.testing.assert_allclose(rms(total), 1.0, rtol=0.01)
    shares = (np.mean(total * a), np.mean(total * b))  # by projection
    norm = np.hypot(1 - balance, balance)
    np.testing.assert_allclose(shares, ((1 - balance) / norm, balance / norm), atol=0.01)


@pytest.mark.parametrize("balance", [0.3, 0.5])
@pytest.mark.parametrize("channels", [(24, 24), (12, 60)])
def test_concatenations_keep_the_magnitude_and_weigh_their_parts_whatever_their_widths(channels, balance):
    a, b = noise(0, 9000, channels[0]), noise(1, 9000, channels[1])
    both = mp_cat(a, b, balance)
    np.testing.assert_allclose(rms(both), 1.0, rtol=0.01)
    first, second = np.sum(np.square(both[:, : channels[0]])), np.sum(np.square(both[:, channels[0] :]))
    np.testing.assert_allclose(second / first, (balance / (1 - balance)) ** 2, rtol=0.02)


def test_pixel_norm_gives_every_pixel_unit_magnitude():
    x = noise(0, 2, 3, 3, 16) * jnp.asarray([0.1, 30.0]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(pixel_norm(x)), axis=-1)), 1.0, rtol=2e-3)
    gradient = jax.grad(lambda x: jnp.sum(pixel_norm(x)))(jnp.zeros((1, 4)))
    assert np.all(np.isfinite(gradient))  # of a black pixel


def test_fourier_features_have_unit_magnitude_and_forget_distant_noise_levels():
    module = MPFourier(4096, rngs=nnx.Rngs(params=0))
    features = np.asarray(module(jnp.linspace(-3.0, 2.0, 41)))
    np.testing.assert_allclose(np.sqrt(np.mean(features**2, axis=1)), 1.0, rtol=0.05)
    # E[2 cos(a w + phi) cos(b w + phi)] = exp(-(2 pi (a - b))^2 / 2) for w ~ N(0, (2 pi)^2), phi uniform
    offset = np.linspace(-3.0, 2.0, 41)[:, None] - np.linspace(-3.0, 2.0, 41)[None, :]
    kernel = np.exp(-0.5 * (2 * np.pi * offset) ** 2)
    np.testing.assert_allclose(features @ features.T / 4096, kernel, atol=0.08)
    _, params = as_function(module)
    gradient = jax.grad(lambda p: jnp.sum(nnx.merge(nnx.graphdef(module), p)(jnp.ones((2,)))))(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))  # they are kept, not trained


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_convolutions_of_noise_have_the_magnitude_of_their_gain(dims):
    layer = weights_of(lambda: MPConv(64, 96, 3, dims=dims, rngs=nnx.Rngs(params=0)))
    space = {0: (400,), 1: (400,), 2: (24, 24), 3: (9, 9, 9)}[dims]
    out = layer(noise(1, 1, *space, 64), 0.5)
    inside = out[(0, *(slice(1, -1) for _ in space))]  # at the border there are zeros outside
    np.testing.assert_allclose(rms(inside), 0.5, rtol=0.03)


@pytest.mark.parametrize("size", [1, 3])
def test_the_scale_of_a_weight_has_no_effect_and_its_gradient_is_orthogonal_to_it(size):
    """To the published epsilon of 1e-4, whose effect on a weight of unit magnitude is known."""
    layer = weights_of(lambda: MPConv(8, 6, size, dims=2, rngs=nnx.Rngs(params=0)))
    apply, params = as_function(layer)
    weight = normalize_weight(params["weight"])
    x, direction = noise(1, 2, 5, 5, 8), noise(2, 2, 5, 5, 6)

    @jax.jit
    def loss(weight):
        return jnp.sum(direction * apply({"weight": weight}, x))

    plain, gradient = jax.value_and_grad(loss)(weight)
    np.testing.assert_allclose(loss(3.0 * weight), plain, rtol=1e-4)
    np.testing.assert_allclose(jax.grad(loss)(3.0 * weight) * 3.0, gradient, rtol=3e-4, atol=1e-4 * rms(gradient))
    gradient, weight = (np.asarray(a, np.float64).reshape(-1, 6) for a in (gradient, weight))
    sizes = np.linalg.norm(gradient, axis=0) * np.linalg.norm(weight, axis=0)
    assert np.all(np.abs(np.sum(gradient * weight, axis=0)) < 3e-4 * sizes)


def test_forced_normalisation_keeps_the_function_and_puts_weights_on_their_sphere():
    module = weights_of(lambda: CosineAttention(32, 16, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0)))
    apply, params = as_function(module)
    params = {**params, "gain": jnp.asarray(5.0)}
    normal = normalize_weights(params)
    for name in ("query_key_value", "out"):
        magnitude = np.sqrt(np.mean(np.square(normal[name]["weight"]), axis=0))
        np.testing.assert_allclose(magnitude, 1.0, rtol=2e-4)
    assert normal.pop("gain") == params.pop("gain") == 5.0
    x = noise(3, 2, 4, 4, 32)
    np.testing.assert_allclose(apply(normal, x), apply(params, x), atol=1e-3)
    twice = normalize_weights(normal)
    np.testing.assert_allclose(twice["out"]["weight"], normal["out"]["weight"], rtol=2e-4)


def test_cosine_attention_ignores_the_magnitude_of_its_input():
    """Queries, keys and values are normalised: an input ten times as large changes nothing."""
    layer = nnx.jit(
        weights_of(lambda: CosineAttention(32, 16, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0)))
    )
    x = noise(3, 2, 4, 4, 32)
    np.testing.assert_allclose(layer(10.0 * x), layer(x), atol=2e-3)
    # of equal pixels the average is their value, of unit magnitude
    np.testing.assert_allclose(rms(layer(jnp.broadcast_to(x[:, :1, :1], x.shape))), 1.0, rtol=0.15)


@functools.cache
def log_variance():
    return as_function(LogVariance(rngs=nnx.Rngs(params=0)))


def test_the_log_variance_is_a_function_of_the_noise_level_that_learns_a_loss():
    """The minimum of E[e^-u L + u] is u = log E[L]: of a loss that grows with the noise level, by gradient descent."""
    apply, params = log_variance()
    c = jnp.linspace(-1.0, 1.0, 32)
    target = 1.0 + 0.8 * c
    assert apply(params, c).shape == (32,)

    def objective(params):
        u = apply(params, c)
        return jnp.mean(jnp.exp(target - u) + u)

    @jax.jit
    def descend(params):
        def step(params, _):
            gradient = jax.grad(objective)(params)
            return normalize_weights(jax.tree.map(lambda p, g: p - 3.0 * g, params, gradient)), None

        return jax.lax.scan(step, params, length=300)[0]

    before, after = objective(params), objective(descend(params))
    least = float(jnp.mean(1.0 + target))
    assert after - least < 0.1 * (before - least)


def test_of_doubled_pixels_is_as_exact_in_bfloat16_as_of_the_doubled_image():
    """The entries of the small kernels are sums of those of the large one: rounded before they are added, they cost a third more."""
    conv, exact = (
        MPConv(32, 32, 3, dims=2, dtype=dtype, rngs=nnx.Rngs(params=0)) for dtype in (jnp.bfloat16, jnp.float32)
    )
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 32), jnp.bfloat16)
    doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    expected = exact(doubled.astype(jnp.float32))
    ours, plain = (jnp.linalg.norm(y.astype(jnp.float32) - expected) for y in (conv.of_doubled(x), conv(doubled)))
    assert ours < 1.1 * plain
    assert plain < 2.0**-8 * jnp.linalg.norm(expected)
