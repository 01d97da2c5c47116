"""The step is plain gradient descent on the mean loss, on any layout of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdelab.train import ConstantDecay, init_state, make_train_step
from sdelab.train.step import example_keys

BATCH = {"x": jnp.array([[1.0], [2.0], [4.0], [9.0]]), "index": jnp.arange(4)}


def squares(params, keys, batch):
    return jnp.sum((batch["x"] - params["mean"][None]) ** 2, axis=1)


def noisy(params, keys, batch):
    noise = jax.vmap(lambda key: jax.random.normal(key, (1,)))(keys)
    return jnp.sum((batch["x"] + noise - params["mean"][None]) ** 2, axis=1)


RATE = optax.constant_schedule(0.25)


def stepper(loss_fn, **arguments):
    return make_train_step(loss_fn, optax.sgd(RATE), ema=ConstantDecay(0.5), learning_rate=RATE, **arguments)


def initial():
    return init_state({"mean": jnp.zeros((1,))}, optax.sgd(RATE))


def test_one_step_by_hand():
    state, metrics = stepper(squares)(initial(), BATCH, jax.random.key(0))
    # mean loss (1 + 4 + 16 + 81) / 4, gradient -2 mean(x) = -8, step 0.25 * 8, average halfway from 0
    np.testing.assert_allclose(metrics["loss"], 25.5)
    np.testing.assert_allclose(metrics["grad_norm"], 8.0)
    np.testing.assert_allclose(state["params"]["mean"], [2.0])
    np.testing.assert_allclose(state["ema"]["mean"], [1.0])


@pytest.mark.as_users
def test_noise_belongs_to_the_sample_and_the_step_not_to_the_place_in_the_batch():
    order = jnp.array([2, 0, 3, 1])
    shuffled = {name: value[order] for name, value in BATCH.items()}
    here, _ = stepper(noisy)(initial(), BATCH, jax.random.key(7))
    there, _ = stepper(noisy)(initial(), shuffled, jax.random.key(7))
    np.testing.assert_allclose(here["params"]["mean"], there["params"]["mean"], rtol=1e-6)
    keys = example_keys(jax.random.key(7), 3, jnp.array([5, 5, 6]))
    data = jax.random.key_data(keys)
    np.testing.assert_array_equal(data[0], data[1])
    assert np.any(data[0] != data[2])
    assert np.any(data[0] != jax.random.key_data(example_keys(jax.random.key(7), 4, jnp.array([5])))[0])


def test_the_mean_over_devices_gives_the_gradient_of_the_whole_batch():
    """`vmap` with an axis name stands for the devices; plain SGD, since Adam hides a wrong scale."""
    whole, whole_metrics = stepper(noisy)(initial(), BATCH, jax.random.key(1))
    split = jax.tree.map(lambda v: v.reshape(2, 2, *v.shape[1:]), BATCH)
    step = stepper(noisy, mean=lambda tree: jax.lax.pmean(tree, "device"))
    states, metrics = jax.vmap(step, in_axes=(None, 0, None), axis_name="device")(initial(), split, jax.random.key(1))
    for device in range(2):
        np.testing.assert_allclose(states["params"]["mean"][device], whole["params"]["mean"], rtol=1e-6)
        np.testing.assert_allclose(metrics["grad_norm"][device], whole_metrics["grad_norm"], rtol=1e-6)


def test_the_state_can_be_donated_from_the_start():
    state, step = initial(), jax.jit(stepper(noisy), donate_argnums=0)
    for _ in range(3):
        state, metrics = step(state, BATCH, jax.random.key(0))
    assert int(state["step"]) == 3
    assert np.isfinite(metrics["loss"])
