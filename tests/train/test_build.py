"""What a configuration may say, and what it gets if it says something else."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdelab.train import build, init_params

ROOT = Path(__file__).parents[2]


def load(path):
    return runpy.run_path(str(path))["get_config"]().to_dict()


def digits(**changes):
    config = load(ROOT / "configs" / "digits" / "vp.py")
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            config[section][name] = value
        else:
            config[section] = value
    return config


SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,), "classes": 10}
MODELS = {
    "ncsnpp": SMALL,
    "song_unet": SMALL,
    "adm": {**SMALL, "head_size": 8},
    "edm2_unet": {**SMALL, "head_size": 8},
    "dit": {"patch": 2, "width": 16, "depth": 1, "heads": 2, "classes": 10, "positions": "rotary"},
}


@pytest.mark.parametrize("name", [n if n == "ncsnpp" else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_every_network_is_trained_on_images_by_its_name(name):
    """`build` traces a step of it; what a constructor asks of the data, it is given."""
    experiment = build(digits(model={"name": name, **MODELS[name]}))
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(experiment.score.params)) < 100_000


def test_positions_of_a_transformer_have_names():
    with pytest.raises(ValueError, match=r"unknown positions 'rotery'\. Did you mean 'rotary'"):
        build(digits(model={"name": "dit", **MODELS["dit"], "positions": "rotery"}))


@pytest.mark.slow
def test_edm2_s_network_starts_and_updates_end_at_unit_magnitude():
    experiment = build(digits(model={"name": "edm2_unet", **MODELS["edm2_unet"]}))
    rng = np.random.default_rng(0)
    params, grads = (
        jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), experiment.score.params)
        for _ in range(2)
    )
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = experiment.optimizer.update(grads, experiment.optimizer.init(params), params)
    assert_at_unit_magnitude(optax.apply_updates(params, updates))
    assert_at_unit_magnitude(init_params(digits(model={"name": "edm2_unet", **MODELS["edm2_unet"]}), (8, 8, 1)))


def assert_at_unit_magnitude(params):
    weights = [leaf for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "weight"]
    assert weights
    for leaf in weights:
        each = np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1])
        np.testing.assert_allclose(np.sqrt(np.mean(each**2, axis=0)), 1.0, rtol=1e-3)


@pytest.mark.slow
def test_the_learned_uncertainty_is_at_unit_magnitude_beside_any_network():
    """At the start, and after an update."""
    config = digits(loss__uncertainty="edm2")
    params, optimizer = init_params(config, (8, 8, 1)), build(config).optimizer
    assert_at_unit_magnitude(params)
    grads = jax.tree.map(lambda p: jnp.cos(7.0 * p), params)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    assert_at_unit_magnitude(optax.apply_updates(params, updates))


def test_the_rate_falls_where_it_is_told_to():
    rate = build(digits(optim__warmup_steps=2, optim__decay_after=100)).learning_rate
    np.testing.assert_allclose(rate(400) / rate(100), 0.5, rtol=1e-6)
    with pytest.raises(ValueError, match="decay_after = -1 is not accepted"):
        build(digits(optim__decay_after=-1))


def test_fields_of_the_process_are_the_config_s():
    assert build(digits(sde__beta_max=12.0)).sde.beta_max == 12.0


def test_betas_may_be_integers():
    assert build(digits(optim__b1=0)).optim.b1 == 0


def test_the_network_is_drawn_from_the_seed_in_the_shapes_that_were_announced():
    def leaves(seed):
        return jax.tree.leaves(init_params(digits(seed=seed), (8, 8, 1)))

    first, again, other = leaves(0), leaves(0), leaves(1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert any(np.any(a != b) for a, b in zip(first, other, strict=True))
    announced = jax.tree.leaves(build(digits()).score.params)
    assert [(x.shape, x.dtype) for x in announced] == [(x.shape, x.dtype) for x in first]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sde__name": "VPE"}, r"unknown sde 'VPE'. Did you mean 'VP'\? Known: EDM, RectifiedFlow"),
        ({"sde__beta_maks": 3.0}, "unknown key of config.sde 'beta_maks'. Did you mean 'beta_max'"),
        ({"sde__beta_max": -1.0}, "config.sde: beta_max = -1.0 is not accepted"),
        ({"sde__beta_max": None}, r"(?s)config\.sde: .*beta_max.*None"),
        ({"model__name": "unets"}, "unknown model 'unets'. Did you mean 'unet'"),
        ({"model__widht": 3}, "unknown key of config.model 'widht'"),
        ({"model__channels": 0}, "config.model: channels = 0 is not accepted"),
        ({"model__multipliers": (1, 2.5)}, r"(?s)config\.model: .*multipliers.*2\.5"),
        ({"model__classes": 7}, "config.model: classes = 7 is not accepted; digits has 10 classes"),
        ({"data__name": "digitz"}, "unknown data 'digitz'. Did you mean 'digits'"),
        ({"preconditioner__name": "edn"}, "unknown preconditioner 'edn'. Did you mean 'edm'"),
        ({"loss__weighting": "sigma"}, "unknown weighting 'sigma'. Did you mean 'sigma_squared'"),
        ({"loss__t_min": -1.0}, "config.loss: t_min = -1.0"),
        ({"ema__decay": 1.5}, "config.ema: decay = 1.5"),
        ({"optim__batch_size": 1501}, "batch_size = 1501 is not accepted; digits has 1500"),
        ({"optim__batch_size": True}, "batch_size = True is not accepted"),
        ({"optim__learning_rate": 0.0}, "config.optim: learning_rate = 0.0"),
        ({"optim__b1": 1.0}, "config.optim: b1 = 1.0"),
        ({"optim__warmup_steps": 1.5}, r"(?s)config\.optim: .*warmup_steps.*1\.5"),
        ({"loss__t_min": 5.0}, "config.loss: t_min = 5.0 is not accepted; it must be less than t_max = 1.0"),
        ({"model__multipliers": (1, 1, 1, 1, 1)}, "sides are multiples of 16"),
        ({"run__steps": 0}, "config.run: steps = 0"),
        ({"run__keep": 1}, "config.run: keep = 1"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 1.0}, "seed = 1.0"),
        ({"optimizer": {}}, "unknown config section 'optimizer'. Did you mean 'optim'"),
    ],
)
def test_what_a_config_may_not_say(changes, words):
    with pytest.raises((ValueError, TypeError), match=words):
        build(digits(**changes))


def test_a_missing_section_and_a_missing_name_are_named():
    config = digits()
    del config["ema"]
    with pytest.raises(ValueError, match="the config lacks ema"):
        build(config)
    config = digits()
    del config["sde"]["name"]
    with pytest.raises(ValueError, match=r"config\.sde lacks a name"):
        build(config)


def test_a_missing_data_file_is_named_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        build(digits(data__name="mnist"))
