"""Metrics between two rows: means, and the first step at which one was not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.train import NonFiniteMetric
from sdelab.train.window import empty_window, read_window, with_window


def run(losses, norms):
    """The window after steps whose metrics are given."""

    def train_step(state, batch, root_key):
        k = state["step"]
        return {"step": k + 1}, {"loss": batch["loss"][k], "grad_norm": batch["norm"][k]}

    step = jax.jit(with_window(train_step))
    carry = {"state": {"step": jnp.zeros((), jnp.int32)}, "window": empty_window(("loss", "grad_norm"))}
    for _ in losses:
        carry = step(carry, {"loss": jnp.array(losses), "norm": jnp.array(norms)}, jax.random.key(0))
    return carry["window"]


def test_a_row_is_the_mean_over_its_steps():
    assert read_window(run([1.0, 2.0, 6.0], [1.0, 1.0, 4.0])) == {"loss": 3.0, "grad_norm": 2.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_bad_step_and_its_metric_are_named_though_later_ones_are_finite(bad):
    with pytest.raises(NonFiniteMetric, match=r"^grad_norm not finite at step 2;"):
        read_window(run([1.0, 2.0, bad, 3.0], [1.0, bad, 1.0, 1.0]))


def test_both_metrics_are_named():
    with pytest.raises(NonFiniteMetric, match=r"^grad_norm and loss not finite at step 1;"):
        read_window(run([np.nan, 2.0], [np.nan, 1.0]))
