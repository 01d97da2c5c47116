"""What section `loss` names is what is computed: the loss function against the objects that it is made of."""

import dataclasses
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sdelab import losses
from sdelab.divergence import Hutchinson
from sdelab.losses import denoising_score_matching
from sdelab.nn import LogVariance, as_function
from sdelab.sde import VE, VP
from sdelab.train import build, fit, init_state, load_run, make_train_step
from sdelab.train.build import build_optimizer, build_score, build_sde, init_params
from sdelab.train.objective import REDUCTIONS, build_loss
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
    random, size = np.random.default_rng(0), config["optim"]["batch_size"]
    score = build_score(config, build_sde(config), (2,))
    loss_fn = build_loss(config, score, batch_size=size, conditional=False)
    params = jax.tree.map(lambda leaf: random.normal(0.0, 0.3, leaf.shape).astype(np.float32), score.params)
    params = jax.tree.map(jnp.asarray, params)
    index = jnp.arange(size, dtype=jnp.int32)
    x = jnp.asarray(random.normal(size=(size, 2)), jnp.float32)
    batch = {"x": x, "label": index, "index": index, "step_key": STEP_KEY}
    keys = jax.vmap(lambda i: jax.random.fold_in(STEP_KEY, i))(index)
    values = jax.jit(loss_fn)(params, keys, batch)
    return values, dataclasses.replace(score, params=params), keys, batch


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


def test_a_learned_uncertainty_is_that_of_each_sample_s_label():
    config = toy(uncertainty="edm2", features=16)
    values, score, keys, batch = evaluate(config)
    uncertainty = as_function(LogVariance(features=16, rngs=nnx.Rngs(params=0)))[0]
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


@pytest.mark.parametrize("preconditioner", [None, "score_sde_discrete_vp"])
def test_a_sum_is_as_many_means_as_a_point_has_dimensions(preconditioner):
    section = {} if preconditioner is None else {"name": "discrete"}
    mean, total = (evaluate(toy(preconditioner, **section, **more))[0] for more in ({}, {"reduction": "sum"}))
    np.testing.assert_allclose(total, 2.0 * mean, rtol=1e-6)


def test_published_losses_are_half_of_the_sum_over_an_image():
    factors = {name: reduction().factor(32 * 32 * 3) for name, reduction in REDUCTIONS.items()}
    assert factors == {"mean": 1.0, "sum": 3072.0, "half_sum": 1536.0}


@pytest.mark.slow
def test_a_learned_uncertainty_is_trained_averaged_saved_and_left_out_of_the_network(tmp_path):
    config = toy(uncertainty="edm2", features=16)
    state = fit(config, tmp_path)
    initial = init_params(config, (2,))["uncertainty"]
    trained = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state["params"]["uncertainty"], initial)
    assert trained == {"fourier": {"frequencies": False, "phases": False}, "linear": {"weight": True}}
    run = load_run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, run.score.params, state["ema"])
    plain = build(toy()).score.apply  # the same network, without anything beside it
    x, t = jnp.ones((2, 2)), jnp.asarray([0.1, 0.9])
    alone = dataclasses.replace(run.score, apply=plain, params=state["ema"]["network"])
    np.testing.assert_array_equal(run.score(x, t), alone(x, t))


def test_a_learned_uncertainty_beside_a_network_of_unit_weights_is_of_unit_weight():
    """Every update normalises both: no other parameter of the loss may be taken for such a weight."""
    config = runpy.run_path(str(ROOT / "configs" / "digits" / "vp.py"))["get_config"]().to_dict()
    config["model"] = {"name": "edm2_unet", "channels": 16, "multipliers": (1,), "blocks": 1, "classes": 10}
    config["model"] |= {"attention_resolutions": (), "head_size": 16}
    config["loss"] = {"uncertainty": "edm2", "features": 32}
    optimizer, params = build_optimizer(config)[0], init_params(config, (8, 8, 1))

    @jax.jit
    def update(params):
        updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
        return optax.apply_updates(params, updates)["uncertainty"]

    with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
        after = update(params)
    np.testing.assert_allclose(jnp.mean(after["linear"]["weight"] ** 2), 1.0, rtol=1e-3)
    assert not np.allclose(jnp.abs(after["linear"]["weight"]), 1.0, rtol=0.1)


@pytest.mark.parametrize("layout", ["antithetic", "stratified"])
def test_a_sample_s_loss_is_the_same_on_every_layout_of_devices(layout):
    """Half of the batch on each device, and the two of every pair apart."""
    whole, score, keys, batch = evaluate(toy(layout=layout))
    loss_fn = jax.jit(build_loss(toy(layout=layout), score, batch_size=BATCH, conditional=False))
    for part in (jnp.asarray([0, 3, 5, 6]), jnp.asarray([4, 1, 7, 2])):
        own = {name: value if name == "step_key" else value[part] for name, value in batch.items()}
        np.testing.assert_allclose(loss_fn(score.params, keys[part], own), whole[part], rtol=2e-5)


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
        ({"uncertainty": "edm"}, "unknown uncertainty 'edm'. Did you mean 'edm2'"),
        ({"reduction": "summ"}, "unknown reduction 'summ'. Did you mean 'sum'"),
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
