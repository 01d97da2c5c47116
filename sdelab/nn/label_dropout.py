import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from sdelab._checks import check_unit_interval
from sdelab._typing import PRNGKeys
from sdelab.nn.layers import check_rate

_LAYER = 0x6C61626C  # apart from the numbers of the blocks, which fold into the same keys


def check_dropout(dropout: float | int, label_dropout: float | int, classes: int) -> None:
    check_rate(dropout)
    check_unit_interval(label_dropout=label_dropout)
    if label_dropout > 0.0 and classes == 0:
        raise ValueError(f"label_dropout = {label_dropout} is not accepted without labels; classes must be > 0.")


def drop_labels(
    labels: Shaped[Array, "batch *row"], rate: float | int, keys: PRNGKeys | None, *, none: int = -1
) -> Shaped[Array, "batch *row"]:
    """Labels, or rows of numbers that tell them, which become `none` with probability `rate`, each by its sample's key.

    Without keys, and at rate 0, the identity. What classifier-free guidance trains with. Ho and Salimans (2022),
    algorithm 1, https://arxiv.org/abs/2207.12598.
    """
    if keys is None or rate == 0.0:
        return labels
    dropped = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, _LAYER), rate))(keys)
    dropped = dropped.reshape((-1,) + (1,) * (labels.ndim - 1))
    return jnp.where(dropped, jnp.full_like(labels, none), labels)
