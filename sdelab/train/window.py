"""Metrics between two rows of the log, accumulated on the device: reading them every step would serialise dispatch."""

from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from sdelab._typing import PRNGKey
from sdelab.train.step import Batch, Metrics, TrainStep

Window: TypeAlias = dict[str, Any]
"""`{"count", "sum", "first_bad"}`: steps so far, the sum of each metric, and the first step at which it was not finite."""

Carry: TypeAlias = dict[str, Any]
"""`{"state": TrainState, "window": Window}`: what the loop carries, and what a checkpoint holds."""

NEVER = np.iinfo(np.int32).max


class NonFiniteMetric(FloatingPointError):
    """A metric became infinite or NaN: training stops, and the last good checkpoint stays."""


def empty_window(names: Collection[str]) -> Window:
    """The window before any step, for metrics of the given names."""
    return {
        "count": jnp.zeros((), jnp.int32),
        "sum": {name: jnp.zeros((), jnp.float32) for name in names},
        "first_bad": {name: jnp.full((), NEVER, jnp.int32) for name in names},
    }


def with_window(train_step: TrainStep) -> Callable[[Carry, Batch, PRNGKey], Carry]:
    """The step that carries the window beside the state instead of returning metrics."""

    def step(carry: Carry, batch: Batch, root_key: PRNGKey) -> Carry:
        state, metrics = train_step(carry["state"], batch, root_key)
        return {"state": state, "window": _add(carry["window"], metrics, state["step"])}

    return step


def read_window(window: Window) -> dict[str, float]:
    """The mean of each metric over the window, on the host.

    Errors: `NonFiniteMetric`, with the first step and the metrics that were not finite there.
    """
    window = jax.device_get(window)
    first = min(int(step) for step in window["first_bad"].values())
    if first != NEVER:
        names = sorted(name for name, step in window["first_bad"].items() if int(step) == first)
        raise NonFiniteMetric(f"{' and '.join(names)} not finite at step {first}; training stopped.")
    return {name: float(total) / max(int(window["count"]), 1) for name, total in window["sum"].items()}


def _add(window: Window, metrics: Metrics, step: Any) -> Window:
    bad = jax.tree.map(lambda m: jnp.where(jnp.isfinite(m), jnp.asarray(NEVER, jnp.int32), step), metrics)
    return {
        "count": window["count"] + 1,
        "sum": jax.tree.map(lambda total, m: total + m.astype(jnp.float32), window["sum"], metrics),
        "first_bad": jax.tree.map(jnp.minimum, window["first_bad"], bad),
    }
