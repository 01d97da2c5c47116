"""What section `loss` names is what is computed: the loss function against the objects that it is made of."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import losses
from sdelab.divergence import Hutchinson
from sdelab.losses import denoising_score_matching
from sdelab.sde import VE, VP
from sdelab.train import build, fit, init_params, init_state, load_run, make_train_step
from sdelab.train.step import example_keys

ROOT = Path(__file__).parents[2]
BATCH = 8
STEP_KEY = jax.random.key(11)


def toy(preconditioner=None, **loss):
    config = runpy.run_path(str(ROOT / "configs" / "toy" / "rings.py"))["get_config"]().to_dict()
    config["sde"] = {"name": "VP"}
    config["model"] |= {"width": 8, "depth": 1}
    config["optim"] |= {"batch_size": BATCH, "warmup_steps": 0}
    config["run"] |= {"steps": 3, "checkpoint_every": 3, "log_every": 1}
    config["loss"] = loss
    if preconditioner is not None:
        config["preconditioner"] = {"name": preconditioner}
    return config


def evaluate(config):
    """The losses of a batch at random parameters, and what they were computed from."""
    experiment, key_params = build(config), jax.random.key(2)
    initial = init_params(config, experiment.dataset.event_shape)
    leaves, structure = jax.tree.flatten(initial)
    keys = jax.random.split(key_params, len(leaves))
    params = structure.unflatten(
        [leaf + 0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )
    index = jnp.arange(BATCH, dtype=jnp.int32)
    batch = {"x": jnp.asarray(experiment.dataset.train[:BATCH]), "label": index, "index": index, "step_key": STEP_KEY}
    keys = jax.vmap(lambda i: jax.random.fold_in(STEP_KEY, i))(index)
    values = jax.jit(experiment.loss_fn)(params, keys, batch)
    score = type(experiment.score)(experiment.sde, experiment.score.preconditioner, experiment.score.apply, params)
    return values, score, keys, batch


UNIFORM = losses.UniformTime()
SECTIONS = {
    "as before": ({"weighting": "sigma_squared", "t_min": 1e-5}, losses.SigmaSquared(), UNIFORM, {}),
    "nothing": ({}, losses.SigmaSquared(), UNIFORM, {}),
    "importance": (
        {"weighting": "diffusion_squared", "times": "importance", "t_min": 1e-4, "steps": 100},
        losses.DiffusionSquared(),
        losses.ImportanceSampledTime(VP(), 1e-4, steps=100),
        {},
    ),
    "edm": (
        {"weighting": "edm", "times": "log_normal", "error": "data", "data_std": 0.7, "mean": -0.4, "t_min": 1e-5},
        losses.EDMWeighting(0.7),
        losses.LogNormalNoise(-0.4, 1.2),
        {"error": losses.DataError()},
    ),
    "min-SNR, stratified": (
        {"weighting": "min_snr", "gamma": 3.0, "layout": "stratified"},
        losses.MinSNR(3.0),
        losses.Stratified(UNIFORM, BATCH),
        {},
    ),
    "soft-min-SNR, antithetic": (
        {"weighting": "soft_min_snr", "layout": "antithetic"},
        losses.SoftMinSNR(),
        losses.Antithetic(UNIFORM),
        {},
    ),
    "sigmoid": ({"weighting": "snr_sigmoid", "bias": -1.0}, losses.SigmoidSNR(-1.0), UNIFORM, {}),
    "vp noise": (
        {"times": "vp_noise", "beta_max": 18.0},
        losses.SigmaSquared(),
        losses.NoiseOf(VP(0.1, 18.0), UNIFORM),
        {},
    ),
    "ve noise": (
        {"times": "ve_noise"},
        losses.SigmaSquared(),
        losses.NoiseOf(VE(0.02, 100.0), losses.UniformTime(0.0)),
        {},
    ),
}


@pytest.mark.parametrize("name", list(SECTIONS))
def test_the_section_is_the_objects_that_it_names(name):
    section, weighting, times, more = SECTIONS[name]
    values, score, keys, batch = evaluate(toy(**section))

    @jax.jit
    def direct(keys, x):
        together = {"index": batch["index"], "shared_key": STEP_KEY}
        settings = {"weighting": weighting, "time_sampler": times, **together, **more}
        return denoising_score_matching(keys, score, score.sde, x, **settings)

    np.testing.assert_allclose(values, direct(keys, batch["x"]), rtol=1e-5)


def test_implicit_and_sliced_losses_are_named_too():
    settings = {"weighting": losses.SigmaSquared(), "time_sampler": losses.UniformTime(0.01)}
    values, score, keys, batch = evaluate(toy(name="implicit", divergence="hutchinson", count=2, t_min=0.01))
    direct = jax.jit(
        lambda: losses.implicit_score_matching(keys, score, score.sde, batch["x"], divergence=Hutchinson(2), **settings)
    )
    np.testing.assert_allclose(values, direct(), rtol=1e-4)
    values, score, keys, batch = evaluate(toy(name="sliced", t_min=0.01))
    direct = jax.jit(lambda: losses.sliced_score_matching(keys, score, score.sde, batch["x"], **settings))
    np.testing.assert_allclose(values, direct(), rtol=1e-4)


@pytest.mark.parametrize(
    ("preconditioner", "levels"),
    [("score_sde_discrete_vp", losses.DDPMLevels()), ("score_sde_discrete_ve", losses.SMLDLevels())],
)
def test_the_discrete_loss_trains_on_the_preconditioner_s_table(preconditioner, levels):
    values, score, keys, batch = evaluate(toy(preconditioner, name="discrete"))

    def network(x, label):
        return score.apply(score.params, x, label, None)

    direct = jax.jit(lambda: losses.discrete_denoising(keys, network, levels, batch["x"]))
    np.testing.assert_allclose(values, direct(), rtol=1e-4)


def test_a_learned_uncertainty_is_trained_averaged_saved_and_left_out_of_the_network(tmp_path):
    config = toy(uncertainty="fourier", features=16)
    values, score, keys, batch = evaluate(config)
    uncertainty = losses.FourierLogVariance(16)
    direct = jax.jit(
        lambda: denoising_score_matching(
            keys,
            score,
            score.sde,
            batch["x"],
            weighting=losses.SigmaSquared(),
            time_sampler=UNIFORM,
            log_variance=lambda t: uncertainty(score.params["uncertainty"], score.label(t)),
        )
    )
    np.testing.assert_allclose(values, direct(), rtol=1e-5)

    state = fit(config, tmp_path)
    assert np.any(np.asarray(state["params"]["uncertainty"]["weight"]) != 0.0)
    run = load_run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, run.score.params, state["ema"])
    plain = build(toy()).score.apply  # the same network, without anything beside it
    x, t = jnp.ones((2, 2)), jnp.asarray([0.1, 0.9])
    alone = type(run.score)(run.sde, run.score.preconditioner, plain, state["ema"]["network"])
    np.testing.assert_array_equal(run.score(x, t), alone(x, t))


def test_the_pairs_of_a_step_are_pairs_on_every_layout_of_devices():
    """Half of the batch on each device, a pair apart: the losses are those of the whole batch."""
    config = toy(layout="antithetic")
    experiment = build(config)
    params = init_params(config, experiment.dataset.event_shape)
    step = make_train_step(experiment.loss_fn, experiment.optimizer, ema=experiment.ema, learning_rate=lambda k: 1e-3)
    split_step = make_train_step(
        experiment.loss_fn,
        experiment.optimizer,
        ema=experiment.ema,
        learning_rate=lambda k: 1e-3,
        mean=lambda tree: jax.lax.pmean(tree, "device"),
    )
    index = jnp.arange(BATCH, dtype=jnp.int32)
    batch = {"x": jnp.asarray(experiment.dataset.train[:BATCH]), "label": index, "index": index}
    order = jnp.asarray([[0, 3, 5, 6], [1, 2, 4, 7]])  # no pair is together
    whole = jax.jit(step)(init_state(params, experiment.optimizer), batch, jax.random.key(0))[1]
    halves = jax.jit(jax.vmap(split_step, in_axes=(None, 0, None), axis_name="device"))(
        init_state(params, experiment.optimizer), jax.tree.map(lambda v: v[order], batch), jax.random.key(0)
    )[1]
    np.testing.assert_allclose(halves["loss"], whole["loss"], rtol=1e-5)
    np.testing.assert_allclose(halves["grad_norm"], whole["grad_norm"], rtol=1e-5)


def test_the_step_key_is_that_of_the_examples():
    seen = {}

    def loss_fn(params, keys, batch):
        seen.update(keys=keys, step_key=batch["step_key"])
        return params["a"] * jnp.ones(3)

    experiment = build(toy())
    step = make_train_step(loss_fn, experiment.optimizer, ema=experiment.ema, learning_rate=lambda k: 1e-3)
    state = init_state({"a": jnp.ones(())}, experiment.optimizer)
    step(state, {"index": jnp.arange(3)}, jax.random.key(4))
    expected = jax.vmap(lambda i: jax.random.fold_in(seen["step_key"], i))(jnp.arange(3))
    np.testing.assert_array_equal(jax.random.key_data(seen["keys"]), jax.random.key_data(expected))
    again = example_keys(jax.random.key(4), state["step"], jnp.arange(3))
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(expected))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"name": "denoisng"}, "unknown loss 'denoisng'. Did you mean 'denoising'"),
        ({"times": "uniforn"}, "unknown times 'uniforn'. Did you mean 'uniform'"),
        ({"layout": "strata"}, "unknown layout 'strata'. Did you mean 'stratified'"),
        ({"error": "score"}, "unknown error 'score'"),
        ({"uncertainty": "furier"}, "unknown uncertainty 'furier'. Did you mean 'fourier'"),
        ({"gamma": 5.0}, "unknown key of config.loss 'gamma'"),
        ({"weighting": "min_snr", "gama": 5.0}, "unknown key of config.loss 'gama'. Did you mean 'gamma'"),
        ({"weighting": "min_snr", "gamma": -5.0}, "config.loss: gamma = -5.0 is not accepted"),
        ({"name": "sliced", "divergence": "exact"}, "it draws none; accepted: Hutchinson"),
        ({"name": "discrete"}, "name = 'edm' is not accepted with the discrete loss; accepted: score_sde_discrete_ve"),
        ({"name": "discrete", "weighting": "edm"}, "unknown key of config.loss 'weighting'"),
        ({"times": "importance", "t_min": 2.0}, "t_min = 2.0 is not accepted; it must be less than t_max = 1.0"),
    ],
)
def test_what_a_loss_may_not_say(section, words):
    with pytest.raises((ValueError, TypeError), match=words):
        build(toy(**section))
