"""What training carries from step to step."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

TrainState: TypeAlias = dict[str, Any]
"""`{"step", "params", "ema", "opt_state"}`: a plain nested dict of arrays, the only stateful part of training.

`step` is the number of updates made, int32; `params` and `ema` have one structure; nothing random is stored. A run that
keeps further averages has them in `averages`, by their names, each of the structure of `params`.
"""


def init_state(params: Any, optimizer: optax.GradientTransformation, averages: Iterable[str] = ()) -> TrainState:
    """The state before the first update; the averages, `averages` beside the main one, start at the parameters."""

    def copy() -> Any:
        return jax.tree.map(jnp.copy, params)  # buffers of its own: the state is donated to every step

    further = {name: copy() for name in averages}
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": copy(),
        "ema": copy(),
        "opt_state": optimizer.init(params),
        **({"averages": further} if further else {}),
    }
