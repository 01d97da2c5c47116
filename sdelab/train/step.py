"""One training step, a pure function."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sdelab._typing import PRNGKey, PRNGKeys
from sdelab.train.accumulate import accumulated
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
    averages: Mapping[str, AbstractDecay] = MappingProxyType({}),
    mean: Callable[[Any], Any] = identity,
    pieces: int = 1,
) -> TrainStep:
    """Builds the pure `(state, batch, root_key) -> (state, metrics)`. Jit or shard it at the call site.

    `mean` averages loss and gradients over devices: the identity under `jax.jit`, `lax.pmean` over the axis under
    `pmap` and under `shard_map(check_vma=False)`; with its checks `shard_map` sums gradients itself. `learning_rate` is
    the schedule of `optimizer`, for the metrics. The gradient is computed over `pieces` parts of the batch in turn, each
    with the activations of its part only. `ema` is the main average; `averages` are those in the state's `averages`.
    Metrics: `loss`, the mean over the batch; `grad_norm`, before any clipping; `lr`.
    """

    def train_step(state: TrainState, batch: Batch, root_key: PRNGKey) -> tuple[TrainState, Metrics]:
        keys = example_keys(root_key, state["step"], batch["index"])
        step_key = jax.random.fold_in(root_key, state["step"])

        def mean_loss(params: Any, piece: Any) -> Float[Array, ""]:
            return jnp.mean(loss_fn(params, piece["keys"], {**piece["batch"], "step_key": step_key}))

        compute = accumulated(jax.value_and_grad(mean_loss), pieces)
        # once, of all together: a mean of the loss in every piece, and the derivative of that mean, would be sums of
        # one number each, which cannot be combined with those of the gradients
        loss, grads = mean(compute(state["params"], {"batch": dict(batch), "keys": keys}))
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        step = state["step"] + 1
        after = {"step": step, "params": params, "ema": update_average(state["ema"], params, ema.rate(step))}
        further = {n: update_average(state["averages"][n], params, decay.rate(step)) for n, decay in averages.items()}
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "lr": jnp.asarray(learning_rate(state["step"]), jnp.float32),
        }
        return after | {"opt_state": opt_state} | ({"averages": further} if further else {}), metrics

    return train_step


def example_keys(root_key: PRNGKey, step: Any, index: Any) -> PRNGKeys:
    """One key per example, from the step and the global sample index: the same on every layout of devices."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.fold_in(root_key, step), jnp.asarray(index))
