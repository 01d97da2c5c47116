from typing import Any

import jax
import optax

from sdelab.nn import normalize_weights


def with_forced_normalization(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optimizer`, after whose every update the weights of EDM2's layers, `MPConv`, are at unit magnitude again.

    `sdelab.nn.normalize_weights` of the updated parameters, as an update. The published code normalises at the next
    forward pass instead: the network's function is the same, and the averages differ in what an update adds to a
    weight's length. Karras et al. (2024), config E and eq. 66, https://arxiv.org/abs/2312.02696.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("params = None is not accepted; forced weight normalisation needs the parameters.")
        updates, state = optimizer.update(updates, state, params)
        normal = normalize_weights(optax.apply_updates(params, updates))
        return jax.tree.map(lambda new, old: new - old, normal, params), state

    return optax.GradientTransformation(optimizer.init, update)
