"""Threefry against its authors' known answers, and against JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry2x32_p

from sdelab.solvers.threefry import threefry_2x32

# Random123, tests/kat_vectors, "threefry2x32 20": counter, key, words
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def words(pair):
    return tuple(jnp.asarray([word], jnp.uint32) for word in pair)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    assert tuple(int(word[0]) for word in threefry_2x32(words(key), words(counter))) == expected


def test_the_words_are_those_of_jax():
    """Bit for bit, compiled or not, with shapes that broadcast; so that a run of an older version is this one's."""
    k0, k1 = jax.random.bits(jax.random.key(1), (2, 50, 1))
    high, low = jax.random.bits(jax.random.key(2), (2, 50, 7))
    expected = threefry2x32_p.bind(*jnp.broadcast_arrays(k0, k1, high, low))
    for function in (threefry_2x32, jax.jit(threefry_2x32)):
        np.testing.assert_array_equal(function((k0, k1), (high, low)), expected)
