"""Flash attention has the derivatives of the formula, forwards and backwards, though cuDNN's own goes backwards only.

In cuDNN's place is the formula with a backward pass of its own, which leaves a trace: every gradient comes out doubled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.nn import attention, flash_attention
from sdelab.nn.flash_attention import formula

SHAPE = (2, 6, 2, 8)


@jax.custom_vjp
def stand_in(query, key, value):
    return formula(query, key, value)


def doubled(kept, cotangent):
    return jax.tree.map(lambda x: 2.0 * x, jax.vjp(formula, *kept)[1](cotangent))


stand_in.defvjp(lambda *parts: (formula(*parts), parts), doubled)


@pytest.fixture(autouse=True)
def _instead_of_cudnn(monkeypatch):
    monkeypatch.setattr(flash_attention, "fused", stand_in)
    yield
    jax.clear_caches()


def both(transformed, *inputs):
    """The same transformation of flash attention and of the formula."""
    ways = flash_attention.flash_attention, formula
    return [jax.jit(transformed(lambda parts, way=way: way(*parts)))(*inputs) for way in ways]


def push(f):
    return lambda x, v: jax.jvp(f, (x,), (v,))[1]


def push_many(f):
    def run(x, v):
        return jax.vmap(jax.linearize(f, x)[1])(jnp.stack([v, x - v, 2.0 * v]))

    return run


def push_in_query(f):
    return lambda x, v: jax.jvp(lambda q: f(jnp.stack([q, *x[1:]])), (x[0],), (v[0],))[1]


def pull(f):
    return lambda x, v: jax.grad(lambda x: jnp.sum(f(x) * v[0]))(x)


def pull_remade(f):
    return pull(jax.checkpoint(f))


def pull_by_sample(f):
    return lambda x, v: jax.vmap(pull(f))(jnp.stack([x, v]), jnp.stack([v, x]))


def pull_the_push(f):
    return lambda x, v: jax.grad(lambda x: jnp.sum(jax.jvp(f, (x,), (v,))[1] ** 2))(x)


@pytest.fixture
def inputs():
    return jax.random.normal(jax.random.key(0), (2, 3, *SHAPE))


@pytest.mark.parametrize("transformed", [push, push_many, push_in_query, pull_the_push])
def test_forward_mode_is_that_of_the_formula(inputs, transformed):
    found, expected = both(transformed, *inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transformed", [pull, pull_remade, pull_by_sample])
def test_gradients_come_from_the_fused_backward_pass(inputs, transformed):
    found, expected = both(transformed, *inputs)
    np.testing.assert_allclose(found, 2.0 * expected, rtol=1e-5, atol=1e-5)


def test_values_are_those_of_cudnn_and_networks_ask_for_it_on_a_gpu(inputs, monkeypatch):
    query, key, value = inputs[0].astype(jnp.bfloat16)
    calls = []
    monkeypatch.setattr(flash_attention, "fused", lambda *parts: (calls.append(parts[0].shape), formula(*parts))[1])
    monkeypatch.setattr(attention, "has_cuda", lambda: False)
    flat = [part.reshape(2, 6, 16) for part in (query, key, value)]
    elsewhere = attention.attend(*flat, heads=2)
    assert calls == []
    monkeypatch.setattr(attention, "has_cuda", lambda: True)
    np.testing.assert_array_equal(attention.attend(*flat, heads=2), elsewhere)
    assert calls == [SHAPE]
