"""Adam, warm-up, clipping and average against a run of the published PyTorch code, and against closed forms."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdelab.train import (
    ConstantDecay,
    WarmupDecay,
    adam,
    clip_by_regularised_norm,
    init_state,
    inverse_sqrt_decay,
    linear_warmup,
    make_train_step,
)

NAMES = ("w", "b", "s")


@pytest.fixture(scope="module")
def published():
    return np.load(Path(__file__).parents[1] / "fixtures" / "G_optim" / "adam_ema.npz")


def replay(published, optimizer, schedule):
    """The run of the fixture: a loss linear in the parameters, whose gradients are the stored ones."""
    params = {name: jnp.asarray(published[f"p0/{name}"]) for name in NAMES}

    def loss_fn(params, keys, batch):
        return sum(jnp.sum(params[name] * batch[name][0]) for name in NAMES)[None]

    step = jax.jit(make_train_step(loss_fn, optimizer, ema=WarmupDecay(0.9999), learning_rate=schedule))
    state = init_state(params, optimizer)
    for k in range(12):
        batch = {name: jnp.asarray(published[f"grads/{name}"][k])[None] for name in NAMES}
        state, metrics = step(state, batch | {"index": jnp.zeros((1,), jnp.int32)}, jax.random.key(0))
        yield state, metrics


def test_the_published_run_is_reproduced(published):
    schedule = linear_warmup(2e-4, 5)
    run = replay(published, adam(schedule, clip=clip_by_regularised_norm(1.0)), schedule)
    for k, (state, metrics) in enumerate(run):
        for name in NAMES:
            np.testing.assert_allclose(state["params"][name], published[f"params/{name}"][k], rtol=1e-5, atol=1e-9)
            np.testing.assert_allclose(state["ema"][name], published[f"ema/{name}"][k], rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(metrics["lr"], published["lr"][k], rtol=1e-6)
        np.testing.assert_allclose(metrics["grad_norm"], published["gnorm"][k], rtol=1e-5)
        assert int(state["step"]) == k + 1


def test_the_default_clip_differs_from_the_published_one_by_its_regularisation_only(published):
    schedule = linear_warmup(2e-4, 5)
    *_, (state, _) = replay(published, adam(schedule), schedule)
    for name in NAMES:
        np.testing.assert_allclose(state["params"][name], published[f"params/{name}"][-1], rtol=1e-5, atol=1e-7)


def test_decay_of_the_published_average(published):
    decays = [float(WarmupDecay(0.9999)(jnp.asarray(n))) for n in range(1, 13)]
    np.testing.assert_allclose(decays, published["ema_decay_used"], rtol=1e-6)
    assert float(WarmupDecay(0.9)(jnp.asarray(10_000))) == np.float32(0.9)


def test_the_first_learning_rate_is_zero_and_the_last_is_constant():
    schedule = linear_warmup(1e-3, 4)
    np.testing.assert_allclose([schedule(k) for k in range(7)], 1e-3 * np.minimum(np.arange(7) / 4, 1), rtol=1e-6)
    assert linear_warmup(1e-3, 0)(0) == np.float32(1e-3)


def test_the_rate_of_edm2_falls_as_the_inverse_square_root():
    """As `learning_rate_schedule` of the published code has it, in images: ramp-up, then the reference number of batches."""
    batch, ramp_up, reference, rate = 2048, 10_000_384, 70_000, 0.0100
    schedule = inverse_sqrt_decay(linear_warmup(rate, ramp_up // batch), reference)
    for step in (0, 100, ramp_up // batch, 69_999, 70_000, 280_000, 10**6):
        images = step * batch
        expected = rate / np.sqrt(max(images / (reference * batch), 1.0)) * min(images / ramp_up, 1.0)
        np.testing.assert_allclose(float(schedule(step)), expected, rtol=1e-6)


@pytest.mark.parametrize("max_norm", [0.5, 50.0])
def test_the_regularised_clip_is_the_formula(max_norm):
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}  # norm 5
    clipped, _ = clip_by_regularised_norm(max_norm).update(grads, optax.EmptyState())
    factor = min(1.0, max_norm / (5.0 + 1e-6))
    np.testing.assert_allclose(clipped["a"], factor * np.array([3.0, 0.0]), rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], factor * np.array([[4.0]]), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConstantDecay(1.5), r"decay = 1.5 .* \[0, 1\]"),
        (lambda: WarmupDecay(float("nan")), "decay = nan"),
        (lambda: linear_warmup(0.0, 5), "learning_rate = 0.0"),
        (lambda: linear_warmup(1e-3, -1), "warmup_steps = -1"),
        (lambda: inverse_sqrt_decay(linear_warmup(1.0, 1), 0), "decay_after = 0"),
        (lambda: clip_by_regularised_norm(0.0), "max_norm = 0.0"),
    ],
)
def test_values_outside_the_domain_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
