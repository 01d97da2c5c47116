"""Every file in `configs/`: it builds, its step traces, and it says what is published."""

import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.cli.config_file import load_config
from sdelab.data import GreyLevels
from sdelab.data.registry import LOADERS
from sdelab.interop import edm_config, score_sde_config
from sdelab.nn import ADM, NCSNpp, SongUNet
from sdelab.train import build, declare_dataset
from sdelab.train.build import MODELS, build_optimizer, build_score, build_sde, parameters_of

ROOT = Path(__file__).parents[1]
CONFIGS = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "configs").rglob("*.py"))]
PUBLISHED = [name for name in CONFIGS if re.match(r"configs/(cifar10|ffhq64|celebahq256|imagenet64)/", name)]
LARGE = [name for name in CONFIGS if name in PUBLISHED or "ddpmpp" in name]
"""Of published networks."""


def load(name):
    return load_config(str(ROOT / name)).to_dict()


def words(name):
    return (ROOT / name).read_text().split('"""')[1]


def costly(names):
    return [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in names]


def shallow(config):
    """A published config with one block at each resolution, down to the one that attends: what is left out only repeats."""
    model, side = config["model"], config["data"].get("size", 32)
    defaults = defaults_of(MODELS[model["name"]])
    attended = model.get("attention_resolutions", defaults["attention_resolutions"])
    levels = 1 + int(np.log2(side // attended[0]))
    multipliers = model.get("multipliers", defaults["multipliers"])
    cut = {"blocks": 1, "multipliers": multipliers[:levels], "attention_resolutions": attended[:1]}
    return {**config, "model": {**model, **cut}, "run": {**config["run"], "steps": 1}}


@functools.cache
def first_of_its_network():
    """The configs of published networks by their shallow forms: where several have the same one, the first of them."""
    first = {}
    for name in LARGE:
        first.setdefault(json.dumps(shallow(load(name))["model"]), shallow(load(name)))
    return first


def as_traced(name):
    """A network is traced once; other configs with it are held to the rest of what they say, with its highest level alone."""
    config = shallow(load(name))
    model = config["model"]
    if first_of_its_network()[json.dumps(model)] == config:
        return config
    return {**config, "model": {**model, "multipliers": model["multipliers"][:1], "attention_resolutions": ()}}


@functools.cache
def built(text):
    """Of JSON, so that a deep network and its shallow sibling are built once."""
    config = json.loads(text)
    return build(config, declare_dataset(config))  # which traces a step


@pytest.mark.parametrize("name", costly(CONFIGS))
def test_every_config_builds_and_its_step_traces_without_its_data(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    experiment = built(json.dumps(as_traced(name) if name in LARGE else load(name)))
    state = jax.eval_shape(experiment.init_state, experiment.score.params)
    further = ["averages"] if experiment.averages else []
    assert sorted(state) == [*further, "ema", "opt_state", "params", "step"]


@pytest.mark.parametrize("name", ["configs/digits/vp.py", "configs/toy/rings.py"])
def test_a_step_leaves_a_state_of_the_shapes_that_it_found(name):
    experiment = built(json.dumps(load(name)))
    batch = {
        "x": jnp.zeros((4, *experiment.dataset.event_shape)),
        "label": jnp.zeros(4, jnp.int32),
        "index": jnp.arange(4, dtype=jnp.int32),
    }
    state = jax.eval_shape(experiment.init_state, experiment.score.params)
    after, metrics = jax.eval_shape(experiment.train_step(), state, batch, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_says_how_it_is_run_and_what_to_expect(name):
    said = words(name)
    assert f"sdelab train --config {name} --workdir" in said
    for entry in ("Hardware:", "Time:", "Expected:"):
        assert entry in said
    assert load(name)["data"]["name"] in LOADERS
    if name in PUBLISHED:
        assert "Measured:" in said


def defaults_of(network):
    return {key: parameter.default for key, parameter in parameters_of(network).items()}


SCORE_SDE = [name for name in PUBLISHED if "score_sde's" in words(name)]


@pytest.mark.parametrize("name", SCORE_SDE)
def test_settings_of_score_sde_are_those_that_its_checkpoints_are_imported_with(name):
    """Two lists: one in the published words, translated, and one of parts."""
    ours, published = load(name), re.findall(r"score_sde's `(\S+)`", words(name))[0]
    theirs = score_sde_config.translate(score_sde_config.PRESETS[published], None, average="constant")
    for section in ("preconditioner", "optim", "ema"):
        assert ours[section] == theirs.config[section]
    assert ours["sde"] == {**theirs.config["sde"], "t_min": ours["sde"]["t_min"]}
    assert ours["loss"] in (theirs.config["loss"], {**theirs.config["loss"], "times": "uniform"})
    defaults, network = defaults_of(NCSNpp), dict(theirs.config["model"])
    if network.get("embedding") == "fourier":  # which has no table of sigmas
        network = {key: value for key, value in network.items() if key not in ("sigma_min", "sigma_max", "num_scales")}
    assert {**defaults, **ours["model"]} == {**defaults, **network}
    assert ours["run"]["steps"] == theirs.steps - 1  # theirs is the end of a range
    assert (ours["data"]["low"], ours["data"]["high"]) == (theirs.scaling.low, theirs.scaling.high)
    assert ends(ours["data"]) == pytest.approx((-1.0 if published.startswith(("vp", "subvp")) else 0.0, 1.0), abs=1e-6)
    assert declare_dataset(ours).event_shape == theirs.event_shape


def test_every_published_training_on_cifar10_has_a_config():
    wanted = {name for name in score_sde_config.PRESETS if "cifar10" in name}
    assert wanted == {re.findall(r"score_sde's `(\S+)`", words(name))[0] for name in SCORE_SDE if "cifar10" in name}


ARCHITECTURES = {
    "ddpmpp": {"embedding_type": "positional", "encoder_type": "standard", "channel_mult_noise": 1},
    "ncsnpp": {
        "embedding_type": "fourier",
        "encoder_type": "residual",
        "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1],
    },
}
"""Of EDM, in the words of its checkpoints."""


IMAGENET = [name for name in PUBLISHED if "imagenet64" in name]


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in (*SCORE_SDE, *IMAGENET)])
def test_settings_of_edm_are_those_that_its_checkpoints_are_imported_with(name):
    ours, ffhq = load(name), "ffhq" in name
    published = {
        "class_name": "EDMPrecond",
        "model_type": "SongUNet",
        "img_resolution": 64 if ffhq else 32,
        "img_channels": 3,
        "label_dim": 10 if "conditional" in name else 0,
        "augment_dim": 9,
        "channel_mult": [1, 2, 2, 2] if ffhq else [2, 2, 2],
        "dropout": 0.05 if ffhq else 0.13,
        **ARCHITECTURES["ncsnpp" if "ncsnpp" in name else "ddpmpp"],
    }
    theirs = edm_config.translate(published, None)
    for section in ("preconditioner", "sde"):
        assert ours[section] == theirs.config[section]
    assert ours["loss"] == {**theirs.config["loss"], "mean": -1.2, "std": 1.2}
    defaults = defaults_of(SongUNet)
    assert {**defaults, **ours["model"]} == {**defaults, **theirs.config["model"]}
    batch = ours["optim"]["batch_size"]
    assert ours["run"]["steps"] * batch == 200_000_000
    assert 0 <= 10_000_000 - ours["optim"]["warmup_steps"] * batch < batch
    if not ffhq:
        assert ours["optim"] == theirs.config["optim"]
    assert ends(ours["data"]) == pytest.approx((-1.0, 1.0), abs=1e-6)
    assert declare_dataset(ours).event_shape == theirs.event_shape


def test_settings_of_edm_on_imagenet_are_those_that_its_checkpoint_is_imported_with():
    ours = load("configs/imagenet64/edm_adm.py")
    published = {
        "class_name": "EDMPrecond",
        "model_type": "DhariwalUNet",
        "img_resolution": 64,
        "img_channels": 3,
        "label_dim": 1000,
    }
    theirs = edm_config.translate(
        published | {"model_channels": 192, "channel_mult": [1, 2, 3, 4], "dropout": 0.1}, None
    )
    for section in ("preconditioner", "sde", "optim"):
        change = {"batch_size": 4096, "learning_rate": 1e-4, "warmup_steps": 2441} if section == "optim" else {}
        assert ours[section] == {**theirs.config[section], **change}
    assert ours["loss"] == {**theirs.config["loss"], "mean": -1.2, "std": 1.2}
    defaults = defaults_of(ADM)
    assert {**defaults, **ours["model"]} == {
        **defaults,
        **theirs.config["model"],
        "out_channels": 3,
        "dtype": "bfloat16",
    }
    assert 0 <= 2_500_000_000 - ours["run"]["steps"] * 4096 < 4096
    assert ours["ema"] == {"name": "half_life", "half_life": 50_000_000, "ramp_up": 0.05}


@pytest.mark.parametrize(("size", "millions"), [("s", 280), ("m", 498), ("l", 778), ("xl", 1119)])
def test_settings_of_edm2_are_the_published_ones(size, millions):
    """Karras et al. (2024), table 3, and the batches of 2 048 images for which the learning rates are published."""
    ours = load(f"configs/imagenet64/edm2_{size}.py")
    score = build_score(ours, build_sde(ours), declare_dataset(ours).event_shape)
    size_in_millions = sum(leaf.size for leaf in jax.tree.leaves(score.params["network"])) / 1e6
    assert size_in_millions == pytest.approx(millions, abs=0.6)
    assert ours["run"]["steps"] * 2048 == 2**20 * {"s": 1024, "m": 2048, "l": 1024, "xl": 640}[size]
    assert ours["loss"] == {
        **load("configs/imagenet64/edm_adm.py")["loss"],
        "mean": -0.8,
        "std": 1.6,
        "uncertainty": "edm2",
    }
    assert ours["model"]["dropout"] == (0.0 if size == "s" else 0.1)
    assert (ours["optim"]["b1"], ours["optim"]["b2"], ours["optim"]["eps"]) == (0.9, 0.99, 1e-8)
    assert 0 <= 10_000_000 - ours["optim"]["warmup_steps"] * 2048 < 2048
    assert (ours["ema"]["sigma_rel"], ours["averages"]["wide"]["sigma_rel"]) == (0.05, 0.10)
    assert ends(ours["data"]) == pytest.approx((-1.0, 1.0), abs=1e-6)
    rate = build_optimizer(ours)[1]
    highest = {"s": 0.0100, "m": 0.0090, "l": 0.0080, "xl": 0.0070}[size]
    np.testing.assert_allclose(
        [rate(k) for k in (5_000, 35_000, 140_000)], [highest, highest, 0.5 * highest], rtol=1e-6
    )
    assert ours["run"]["snapshot_every"] * 2048 == 8 * 2**20
    assert re.search(rf"preset=edm2-img64-{size}`", words(f"configs/imagenet64/edm2_{size}.py"))


def ends(data):
    """Black and white in model units."""
    return tuple(GreyLevels(256, data["low"], data["high"]).encode(np.array([0, 255])))
