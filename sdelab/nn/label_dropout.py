import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from sdelab._checks import check_unit_interval
from sdelab._typing import PRNGKeys
from sdelab.nn.layers import check_rate

_LAYER = 0x6C61626C  # apart from the numbers of the blocks, which fold into the same keys


def check_dropout(dropout: float | int, label_dropout: float | int, classes: int) -> None:
    check_rate(dropout)
    check_unit_interval(label_dropout=label_dropout)
    if label_dropout > 0.0 and classes == 0:
        raise ValueError(f"label_dropout = {label_dropout} is not accepted without labels; classes must be > 0.")


def drop_labels(condition: Int[Array, " batch"], rate: float | int, keys: PRNGKeys | None) -> Int[Array, " batch"]:
    """Labels that become -1, "none", with probability `rate`, each by its sample's key; without keys the identity.

    What classifier-free guidance trains with. Ho and Salimans (2022), algorithm 1, https://arxiv.org/abs/2207.12598.
    """
    if keys is None or rate == 0.0:
        return condition
    dropped = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, _LAYER), rate))(keys)
    return jnp.where(dropped, jnp.full_like(condition, -1), condition)
