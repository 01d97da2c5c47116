"""Checkpoints that the real writers made become runs whose networks return the published numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab.data import Dataset, GreyLevels, registry
from sdelab.interop.importing import FAMILIES, import_checkpoint
from sdelab.interop.score_sde_config import COMMON, PRESETS, translate
from sdelab.interop.translation import assignment, merged, plain
from sdelab.nn import presets
from sdelab.train import fit, load_run
from tests.interop.real_files import INTEROP, network, restore
from tests.nn.edm_cases import QUICK

VP, VE, DDPM = (f"score_sde_{name}_continuous" for name in ("ddpmpp_vp", "ncsnpp_ve", "ddpm_vp"))
FLAX = "jax_score_sde_ncsnpp_ve_progressive_residual_fir"
IDDPM = "edm_iDDPMPrecond_DhariwalUNet"
EDM = sorted(path.stem for path in INTEROP.glob("edm_*.npz"))
slow = pytest.mark.slow


def published(name, **training):
    """The configuration of a fixture, which does not name its process."""
    sde = {"sde": "vesde" if "_ve_" in name else "vpsde"}
    return merged(network(name)["meta"]["config"], {"training": sde | training})


def largest(error, reference):
    axes = tuple(range(1, reference.ndim))
    return np.max(np.abs(error).max(axes) / np.abs(reference).max(axes))


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Imports a file once; returns the run's directory."""
    runs = {}

    def make(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp("imported")
            family = "edm" if name in EDM else "score_sde_flax" if name == FLAX else "score_sde_torch"
            config = None if name in EDM else published(name)
            import_checkpoint(restore(name, folder / "file"), folder / "run", family=family, config=config)
            runs[name] = folder / "run"
        return runs[name]

    return make


@pytest.mark.parametrize("name", [DDPM, pytest.param(VP, marks=slow), pytest.param(VE, marks=slow)])
def test_score_sde_pytorch_returns_the_published_numbers(imported, name):
    _, score = sdelab.load(imported(name))
    fixture = network(name)
    x = np.moveaxis(fixture["x"], 1, -1)
    out = np.moveaxis(np.asarray(jax.jit(score.apply, compiler_options=QUICK)(score.params, x, fixture["cond"])), -1, 1)
    assert largest(out - fixture["out"], fixture["out"]) < 2e-5


@slow
def test_score_sde_flax_returns_the_published_numbers(imported):
    _, score = sdelab.load(imported(FLAX))
    fixture = network(FLAX)
    out = np.asarray(jax.jit(score.apply, compiler_options=QUICK)(score.params, fixture["x"], fixture["cond"]))
    assert largest(out - fixture["out"], fixture["out"]) < 2e-5


@pytest.mark.parametrize("name", [name if name == IDDPM else pytest.param(name, marks=slow) for name in EDM])
def test_edm_denoises_to_the_published_numbers(imported, name):
    """Through the run's own preconditioner: network, labels, scales and, of iDDPM, the first half of the channels."""
    _, score = sdelab.load(imported(name))
    fixture = network(name)
    condition = {"label": fixture.get("class_labels"), "augment": fixture.get("augment_labels")}
    condition = None if condition["label"] is None else jax.tree.map(jnp.asarray, condition)
    x, sigma = jnp.asarray(np.moveaxis(fixture["x"], 1, -1)), jnp.asarray(fixture["sigma"])
    denoise = jax.jit(lambda x: score.denoise(x, sigma, condition), compiler_options=QUICK)
    denoised = np.moveaxis(np.asarray(denoise(x)), -1, 1)
    assert largest(denoised - fixture["D_x"], fixture["D_x"]) < 2e-5


def test_a_run_trains_on_from_the_raw_weights_and_samples_with_the_averaged(imported):
    """The files' raw weights are half of their averages."""
    averaged, raw = load_run(imported(VE)), load_run(imported(VE), "raw")
    assert (averaged.step, averaged.event_shape, averaged.conditional) == (7, (16, 16, 3), False)
    np.testing.assert_allclose(averaged.scaling.encode(np.array([0, 51, 255])), [0.0, 0.2, 1.0], atol=1e-7)
    frequencies = raw.score.params["noise"]["fourier"].pop("frequencies")
    np.testing.assert_array_equal(averaged.score.params["noise"]["fourier"].pop("frequencies"), frequencies)
    for a, b in zip(jax.tree.leaves(averaged.score.params), jax.tree.leaves(raw.score.params), strict=True):
        np.testing.assert_array_equal(a, 2 * b)


@slow
def test_raw_weights_are_sampled_with_on_request(imported, tmp_path):
    path = restore(VE, tmp_path / "file.pth")
    import_checkpoint(path, tmp_path / "run", family="score_sde_torch", config=published(VE), weights="raw")
    expected = load_run(imported(VE), "raw").score.params
    jax.tree.map(np.testing.assert_array_equal, load_run(tmp_path / "run").score.params, expected)
    jax.tree.map(np.testing.assert_array_equal, load_run(tmp_path / "run", "raw").score.params, expected)
    told = json.loads((tmp_path / "run" / "imported.json").read_text())
    assert (told["from"], told["file"], told["weights"]) == ("score_sde_torch", "file.pth", "raw")
    assert told["published"]["model"]["nf"] == 16


def test_processes_and_preconditioners_are_the_published_ones(imported):
    sde, score = sdelab.load(imported(VE))
    assert sde == sdelab.VE(sigma_min=0.01, sigma_max=50.0)
    assert score.preconditioner == sdelab.score.ScoreSDEVE()
    sde, score = sdelab.load(imported(IDDPM))
    assert sde.t_max == 80.0
    assert sde.t_min == pytest.approx(network(IDDPM)["weights"]["u"][-2], rel=1e-3)  # float32 there
    config = load_run(imported(VE)).config
    assert config["ema"] == {"name": "warmup", "decay": 0.9999}
    assert config["optim"]["learning_rate"] == 2e-4


@pytest.mark.parametrize(
    ("changes", "sde", "preconditioner", "loss"),
    [
        ({}, {"name": "VP", "beta_min": 0.1, "beta_max": 20.0}, {"name": "score_sde_vp"}, "sigma_squared"),
        ({"sde": "subvpsde"}, {"name": "SubVP", "beta_min": 0.1, "beta_max": 20.0}, {"name": "score_sde_vp"}, "sigma_squared"),
        (
            {"sde": "vesde", "likelihood_weighting": True},
            {"name": "VE", "sigma_min": 0.01, "sigma_max": 50.0},
            {"name": "score_sde_ve"},
            "diffusion_squared",
        ),
        (
            {"continuous": False},
            {"name": "VP", "beta_min": 0.1, "beta_max": 20.0},
            {"name": "score_sde_discrete_vp", "n": 1000, "beta_min": 0.1, "beta_max": 20.0},
            None,
        ),
        (
            {"continuous": False, "sde": "vesde"},
            {"name": "VE", "sigma_min": 0.01, "sigma_max": 50.0},
            {"name": "score_sde_discrete_ve", "n": 1000, "sigma_min": 0.01, "sigma_max": 50.0},
            None,
        ),
    ],
)  # fmt: skip
def test_the_sections_of_score_sde(changes, sde, preconditioner, loss):
    config = merged(PRESETS["vp/cifar10_ddpmpp_continuous"], {"training": changes})
    ours = translate(config, None, average="constant").config
    assert (ours["sde"], ours["preconditioner"]) == (sde, preconditioner)
    assert ours["loss"].get("weighting") == loss
    assert ours["loss"].get("name") == (None if loss else "discrete")
    assert ours["ema"] == {"name": "constant", "decay": 0.9999}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vp/ddpm/cifar10_continuous", presets.ddpm()),
        ("ve/cifar10_ddpm", presets.ddpm_smld()),
        ("vp/cifar10_ddpmpp_continuous", presets.ddpmpp()),
        ("subvp/cifar10_ddpmpp_deep_continuous", presets.ddpmpp_deep()),
        ("vp/cifar10_ncsnpp_continuous", presets.ncsnpp_vp()),
        ("ve/cifar10_ncsnpp_continuous", presets.ncsnpp()),
        ("ve/cifar10_ncsnpp_deep_continuous", presets.ncsnpp_deep()),
        ("ve/cifar10_ncsnpp", presets.ncsnpp_discrete()),
        ("ve/ffhq_256_ncsnpp_continuous", presets.ncsnpp_256()),
        ("ve/ffhq_ncsnpp_continuous", presets.ncsnpp_1024()),
        ("ve/celebahq_ncsnpp_continuous", presets.ncsnpp_1024()),
        ("vp/ddpm/celebahq", {**presets.ddpm(), "multipliers": (1, 1, 2, 2, 4, 4), "dropout": 0.0}),
        ("vp/ddpm/church", {**presets.ddpm(), "multipliers": (1, 1, 2, 2, 4, 4), "dropout": 0.0}),
    ],
)
def test_published_configurations_are_the_presets_of_the_network(name, expected):
    """Two lists, one in score_sde's words and one in ours."""
    ours = translate(PRESETS[name], None, average="constant").config["model"]
    assert {key: ours[key] for key in expected if key != "fir"} == {k: v for k, v in expected.items() if k != "fir"}
    assert ours.get("fir") == expected.get("fir")
    assert ours["centered"] == (not name.startswith("ve/"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "edn"}, "unknown family of checkpoints 'edn'. Did you mean 'edm'"),
        ({"weights": "ema"}, "unknown kind of weights 'ema'"),
        ({"config": {"model": {"nf": 24}}}, r"other shapes: .*all_modules.*\(24,"),
        ({"config": {"model": {"num_res_blocks": 1}}}, "arrays without a place: all_modules"),
        ({"config": {"model": {"num_res_blocks": 3}}}, "parameters without an array: "),
        ({"config": {"model": {"sigma_max": 348.0}}}, "model.sigma_max = 348.0 is not accepted; the checkpoint has 50"),
        ({"config": {"model": {"num_res_block": 1}}}, "unknown key of the published model 'num_res_block'. Did you mean 'num_r"),
        ({"config": {"model": {"ch_mult": 2}}}, r"ch_mult = 2 is not accepted; ch_mult must be several numbers, as \(1, 2, 2, 2\)"),
        ({"config": {"model": {"name": "ncsnv2"}}}, "unknown network of score_sde 'ncsnv2'"),
        ({"config": {"model": {"normalization": "InstanceNorm++"}}}, "normalization must be 'GroupNorm'"),
        ({"config": {"training": {"sde": None}}}, "unknown training.sde of the published configuration 'None'. Known: subvp"),
        ({"data": "digit"}, "Did you mean 'digits'"),
        ({"data": "digits"}, r"data = 'digits' is not accepted: \(8, 8, 1\) in GreyLevels.*; the network was trained on \(16, 16, 3\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error_and_no_directory(tmp_path, changes, message):
    path = restore(VP, tmp_path / "file.pth")
    arguments = {"family": "score_sde_torch", **changes, "config": merged(published(VP), changes.get("config", {}))}
    with pytest.raises(ValueError, match=message):
        import_checkpoint(path, tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_a_directory_that_holds_a_run_is_left_alone(imported, tmp_path):
    path = restore(IDDPM, tmp_path / "file.pkl")
    with pytest.raises(ValueError, match="holds a run; use another workdir"):
        import_checkpoint(path, imported(IDDPM), family="edm")


def test_weights_that_are_not_finite_are_an_error(tmp_path):
    path = restore(IDDPM, tmp_path / "file.pkl")
    raw = network(IDDPM)["weights"]["model.out_norm.weight"].tobytes()
    assert path.read_bytes().count(raw) == 1
    path.write_bytes(path.read_bytes().replace(raw, raw[:-4] + np.float32(np.nan).tobytes()))
    with pytest.raises(ValueError, match=r"values of .*norm.* are not finite"):
        import_checkpoint(path, tmp_path / "run", family="edm")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.nf", "set = 'model.nf' is not accepted; accepted: KEY=VALUE"),
        ("model.nff=3", "unknown key of the published model 'nff'. Did you mean 'nf'"),
        ("modle.nf=3", "unknown key of the published configuration 'modle'. Did you mean 'model'"),
        ("model.nf.x=3", "unknown key of the published model.nf 'x'"),
        ("model=3", "model is a section, with keys attention_type"),
    ],
)
def test_assignments_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        assignment(text, COMMON)


def test_of_a_configuration_numbers_and_words_are_kept_and_nothing_that_counts_is_lost():
    device = object()
    config = {
        "model": {"nf": np.int64(64), "ch_mult": [np.int64(1), 2], "dropout": np.float32(0.5)},
        "device": device,
        "seeds": [device, 1],
    }
    kept = plain(config, COMMON)
    assert kept == {"model": {"nf": 64, "ch_mult": [1, 2], "dropout": 0.5}}
    assert type(kept["model"]["nf"]) is int
    with pytest.raises(ValueError, match=r"nf = .* is not accepted; nf must be a number, a word"):
        plain({"model": {"nf": device}}, COMMON)


def test_assignments():
    assert assignment("model.ch_mult=(1, 2)", COMMON) == {"model": {"ch_mult": (1, 2)}}
    assert assignment("training.sde=vpsde", COMMON) == {"training": {"sde": "vpsde"}}
    assert assignment("dropout=0.3", FAMILIES["edm"].known) == {"dropout": 0.3}


@pytest.fixture
def images(monkeypatch):
    """A data set of the fixtures' size and scale."""
    values = np.random.default_rng(0).integers(0, 256, (600, 16, 16, 3), np.uint8)

    def load(low=-1.0, high=1.0, size=8):
        assert size == 16
        return Dataset("images", values[:560], values[560:], GreyLevels(256, low, high))

    monkeypatch.setitem(registry.LOADERS, "images", load)


@pytest.mark.parametrize(("name", "black"), [(VP, -1.0), (VE, 0.0)])
def test_a_data_set_is_read_in_the_network_s_size_and_scale(tmp_path, images, name, black):
    path = restore(name, tmp_path / "file.pth")
    made = import_checkpoint(path, tmp_path / "run", family="score_sde_torch", config=published(name), data="images")
    scaling = GreyLevels(256, made.config["data"]["low"], made.config["data"]["high"])
    np.testing.assert_allclose(scaling.encode(np.array([0, 255])), [black, 1.0], atol=1e-7)
    other = {"name": "images", "low": -2.0}
    with pytest.raises(ValueError, match=r"data = 'images' is not accepted: .* trained on"):
        import_checkpoint(path, tmp_path / "new", family="score_sde_torch", config=published(name), data=other)


@slow
def test_training_goes_on_where_the_published_run_was_left(tmp_path, images):
    path = restore(IDDPM, tmp_path / "file.pkl")
    import_checkpoint(path, tmp_path / "run", family="edm", data="images")
    before = load_run(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["run"]["steps"] = 2
    state = fit(config, tmp_path / "run")
    assert int(state["step"]) == 2
    moved = [
        np.max(np.abs(a - b))
        for a, b in zip(*map(jax.tree.leaves, (state["params"], before.score.params)), strict=True)
    ]
    assert 0.0 < max(moved) < 1e-5  # the warm-up has only begun
