"""Networks that learn two kinds of image from noise: lower loss than any constant, with their labels and without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sdelab.nn import DiT, EDM2UNet, RotaryPositions, as_function
from sdelab.score import EDMPreconditioner
from sdelab.train.forced_normalization import with_forced_normalization

SMALL_EDM2 = {"channels": 16, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,), "head_size": 16}
BUILDERS = {
    "dit": lambda **s: DiT(1, patch=2, width=48, depth=2, heads=2, classes=2, **s),
    "dit-rotary": lambda **s: DiT(1, patch=2, width=48, depth=2, heads=2, classes=2, positions=RotaryPositions(), **s),
    "edm2": lambda **s: EDM2UNet(1, 8, **SMALL_EDM2, classes=2, **s),
}
OPTIMIZERS = {
    "dit": optax.adam(2e-3),
    "dit-rotary": optax.adam(2e-3),
    "edm2": with_forced_normalization(optax.adam(1e-2)),
}
IMAGES = np.stack([np.eye(8), 1.0 - np.eye(8)[::-1]])[..., None] - 0.5  # a stroke on black, another one on white


def batch(key, size):
    """Input, noise label, class and the target of EDM's network, for images that are moved at random."""
    key_label, key_shift, key_sigma, key_noise = jax.random.split(key, 4)
    label = jax.random.bernoulli(key_label, shape=(size,)).astype(jnp.int32)
    shift = jax.random.randint(key_shift, (size,), 0, 8)
    x0 = jax.vmap(functools.partial(jnp.roll, axis=0))(jnp.asarray(IMAGES, jnp.float32)[label], shift)
    sigma = jnp.exp(1.2 * jax.random.normal(key_sigma, (size,)) - 1.2)
    rule, alpha = EDMPreconditioner(0.5), jnp.ones((size,))
    scales = (c(alpha, sigma).reshape(size, 1, 1, 1) for c in (rule.c_in, rule.c_skip, rule.c_out))
    c_in, c_skip, c_out = scales
    x = x0 + sigma.reshape(size, 1, 1, 1) * jax.random.normal(key_noise, x0.shape)
    return c_in * x, rule.c_noise(alpha, alpha, sigma), label, (x0 - c_skip * x) / c_out


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(BUILDERS))
def test_a_hundred_steps_beat_every_constant(kind):
    apply, params = as_function(BUILDERS[kind](rngs=nnx.Rngs(params=0)))
    optimizer = OPTIMIZERS[kind]

    def loss(params, data):
        x, c, label, target = data
        return jnp.mean((apply(params, x, c, label) - target) ** 2)

    @jax.jit
    def step(params, state, key):
        gradient = jax.grad(loss)(params, batch(key, 64))
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for key in jax.random.split(jax.random.key(0), 100):  # a scan would run convolutions on one core
        params, state = step(params, state, key)
    test = batch(jax.random.key(1), 512)
    of_each_pixel = float(jnp.mean(jnp.var(test[3], axis=0)))
    evaluate = jax.jit(loss)
    ratio = float(evaluate(params, test)) / of_each_pixel
    assert ratio < 0.6
    x, c, label, target = test
    wrong = float(evaluate(params, (x, c, 1 - label, target))) / of_each_pixel
    assert wrong > 2 * ratio  # the label carries what noise hides
