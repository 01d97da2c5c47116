"""Threefry-2x32 in 20 rounds, as `jax.random` has it.

JAX's own primitive is a loop over the rounds on CPU, which costs more than the rounds where there are few numbers. Elsewhere it
is what stands here, but for the barrier at the end; what that costs on a GPU or TPU is unmeasured.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)


def threefry_2x32(
    key: tuple[UInt32[Array, "..."], UInt32[Array, "..."]], counter: tuple[UInt32[Array, "..."], UInt32[Array, "..."]]
) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """Two words of 32 random bits for each key and counter of two words; shapes broadcast.

    Salmon, Moraes, Dror and Shaw (2011), https://doi.org/10.1145/2063384.2063405; the rotations and the parity are those of
    its authors' Random123, https://github.com/DEShawResearch/random123, threefry.h.
    """
    keys = (*key, key[0] ^ key[1] ^ PARITY)
    x0, x1 = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(1, 6):
        for rotation in ROTATIONS[(group - 1) % 2]:
            x0 = x0 + x1
            x1 = x0 ^ _rotated(x1, rotation)
        x0 = x0 + keys[group % 3]
        x1 = x1 + keys[(group + 1) % 3] + np.uint32(group)
    # both words are wanted, and whoever reads them would compute them again for each
    return jax.lax.optimization_barrier((x0, x1))


def _rotated(word: UInt32[Array, "..."], left: int) -> UInt32[Array, "..."]:
    return jnp.left_shift(word, np.uint32(left)) | jnp.right_shift(word, np.uint32(32 - left))
