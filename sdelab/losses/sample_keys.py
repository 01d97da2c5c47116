"""What a sample draws is a function of its own key, whatever the batch around it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from sdelab._typing import PRNGKey, PRNGKeys, State

Randomness = tuple[PRNGKeys, Int[Array, " batch"] | None, PRNGKey | None]


def sample_keys(
    keys: PRNGKeys | PRNGKey, batch: int, index: Int[Array, " batch"] | None, shared_key: PRNGKey | None
) -> Randomness:
    """One key per sample, the samples' indices and their shared key.

    A single key is folded with each sample's index, its position unless one is given, and is the shared key too.
    Errors: a number of keys or indices that is not the batch's.
    """
    if index is not None and index.shape != (batch,):
        raise ValueError(f"index has shape {index.shape}; accepted: one number per sample, shape ({batch},).")
    if keys.ndim == 0:
        index = jnp.arange(batch) if index is None else index
        own = jax.vmap(lambda i: jax.random.fold_in(keys, i))(index)
        return own, index, keys if shared_key is None else shared_key
    if keys.shape != (batch,):
        raise ValueError(f"keys has shape {keys.shape}; accepted: one key, or one per sample, shape ({batch},).")
    return keys, index, shared_key


def normal_of(keys: PRNGKeys, like: State) -> State:
    """Standard normal numbers like the state, each sample's from its own key."""
    return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:], like.dtype))(keys)
