"""One training step, a pure function."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sdelab._typing import PRNGKey, PRNGKeys
from sdelab.train.ema import AbstractDecay, update_average
from sdelab.train.state import TrainState

Batch: TypeAlias = Mapping[str, Any]
"""`{"x": (batch, *event), "label": (batch,), "index": (batch,)}`; `index` is the global index of the sample."""

Metrics: TypeAlias = dict[str, Float[Array, ""]]

METRICS = ("loss", "grad_norm", "lr")
"""Names of the metrics of a step."""

LossFn: TypeAlias = Callable[[Any, PRNGKeys, Batch], Float[Array, " batch"]]
"""`(params, keys, batch)` to per-example losses, one key per example.

The step adds `batch["step_key"]`, one key that all examples of the step share, on every device: for what they draw together.
"""

TrainStep: TypeAlias = Callable[[TrainState, Batch, PRNGKey], tuple[TrainState, Metrics]]


def identity(tree: Any) -> Any:
    return tree


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    ema: AbstractDecay,
    learning_rate: optax.Schedule,
    mean: Callable[[Any], Any] = identity,
) -> TrainStep:
    """Builds the pure `(state, batch, root_key) -> (state, metrics)`. Jit or shard it at the call site.

    `mean` averages loss and gradients over devices: the identity under `jax.jit`, `lax.pmean` over the axis under
    `pmap` and `shard_map`. `learning_rate` is the schedule of `optimizer`, for the metrics.
    Metrics: `loss`, the mean over the batch; `grad_norm`, before any clipping; `lr`.
    """

    def train_step(state: TrainState, batch: Batch, root_key: PRNGKey) -> tuple[TrainState, Metrics]:
        keys = example_keys(root_key, state["step"], batch["index"])
        batch = {**batch, "step_key": jax.random.fold_in(root_key, state["step"])}

        def mean_loss(params: Any) -> Float[Array, ""]:
            # The mean is taken inside the differentiated function and again on the gradients: either alone
            # scales the gradient wrongly under one of pmap, shard_map with and without varying-axes checks.
            return mean(jnp.mean(loss_fn(params, keys, batch)))

        loss, grads = jax.value_and_grad(mean_loss)(state["params"])
        grads = mean(grads)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        step = state["step"] + 1
        average = update_average(state["ema"], params, ema(step))
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "lr": jnp.asarray(learning_rate(state["step"]), jnp.float32),
        }
        return {"step": step, "params": params, "ema": average, "opt_state": opt_state}, metrics

    return train_step


def example_keys(root_key: PRNGKey, step: Any, index: Any) -> PRNGKeys:
    """One key per example, from the step and the global sample index: the same on every layout of devices."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.fold_in(root_key, step), jnp.asarray(index))
