"""What training carries from step to step."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

TrainState: TypeAlias = dict[str, Any]
"""`{"step", "params", "ema", "opt_state"}`: a plain nested dict of arrays, the only stateful part of training.

`step` is the number of updates made, int32; `params` and `ema` have one structure; nothing random is stored.
"""


def init_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update; the average starts at the parameters."""
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": jax.tree.map(jnp.copy, params),  # buffers of its own: the state is donated to every step
        "ema": jax.tree.map(jnp.copy, params),
        "opt_state": optimizer.init(params),
    }
