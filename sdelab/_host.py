"""From devices to the host, where several processes share the devices."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array


def on_host(value: Array | np.ndarray) -> np.ndarray:
    """The whole array in every process, wherever its parts are; where processes share it, each must ask for it."""
    if isinstance(value, jax.Array) and not (value.is_fully_addressable or value.is_fully_replicated):
        value = multihost_utils.process_allgather(value, tiled=True)
    return np.asarray(value)
