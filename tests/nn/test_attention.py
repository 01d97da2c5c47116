"""cuDNN's flash attention is asked for where it can be had; elsewhere the numbers are those of the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.nn import attention


@pytest.mark.parametrize(
    ("shape", "dtype", "taken"),
    [
        ((2, 64, 4, 32), jnp.bfloat16, True),
        ((2, 64, 4, 128), jnp.float16, True),
        ((2, 64, 1, 256), jnp.bfloat16, False),
        ((2, 64, 4, 32), jnp.float32, False),
        ((2, 64, 4, 12), jnp.bfloat16, False),
        ((2, 63, 4, 32), jnp.bfloat16, False),
    ],
)
def test_what_flash_attention_takes(monkeypatch, shape, dtype, taken):
    assert not attention.takes_flash_attention(shape, dtype)  # on a CPU nothing
    monkeypatch.setattr(attention, "has_cuda", lambda: True)
    assert attention.takes_flash_attention(shape, dtype) == taken


def test_the_formula():
    """In float64 by NumPy, head by head."""
    query, key, value = np.random.default_rng(0).normal(size=(3, 2, 3, 4, 6))
    found = attention.attend(*(jnp.asarray(a, jnp.float32) for a in (query, key, value)), heads=2)
    for head in (slice(0, 3), slice(3, 6)):
        q, k, v = (a.reshape(2, 12, 6)[..., head] for a in (query, key, value))
        logits = np.einsum("bic,bjc->bij", q, k) / np.sqrt(3)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        expected = np.einsum("bij,bjc->bic", weights / weights.sum(-1, keepdims=True), v)
        np.testing.assert_allclose(found.reshape(2, 12, 6)[..., head], expected, rtol=2e-5, atol=2e-6)


def test_the_gradient_of_bfloat16_is_near_that_of_float32():
    inputs = jax.random.normal(jax.random.key(0), (3, 2, 16, 8))

    def loss(parts):
        return jnp.sum(attention.attend(*parts, heads=2).astype(jnp.float32) ** 2)

    exact = jax.grad(loss)(inputs)
    with jax.numpy_dtype_promotion("standard"):  # of jax's own backward pass
        half = jax.grad(loss)(inputs.astype(jnp.bfloat16)).astype(jnp.float32)
    assert np.linalg.norm(half - exact) <= 0.02 * np.linalg.norm(exact)
