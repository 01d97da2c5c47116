"""The command line: one clear line for what is wrong, and files that hold what they say."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from sdelab.cli.choices import SOLVERS, Options, choose
from sdelab.cli.config_file import apply_overrides, load_config, split_overrides
from sdelab.cli.main import run
from sdelab.data.registry import LOADERS
from sdelab.solvers.catalog import DETERMINISTIC, STOCHASTIC

ROOT = Path(__file__).parents[2]

CONFIG = """
from sdelab.cli.base_config import toy_config


def get_config():
    config = toy_config("two_moons", "VP")
    config.sde.beta_max = 20.0
    config.model.width, config.model.depth, config.model.classes = 16, 1, 2
    config.optim.batch_size = 32
    config.run.steps, config.run.log_every = 20, 5
    return config
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "config.py").write_text(CONFIG)
    (folder / "nothing.py").write_text("")
    (folder / "plain.py").write_text("def get_config():\n    return {}\n")
    (folder / "digits.py").write_text((ROOT / "configs" / "digits" / "vp.py").read_text())
    code = run(
        ["sdelab", "train", "--config", str(folder / "config.py"), "--workdir", str(folder / "run")]
        + ["--config.sde.beta_max=12", "--config.run.checkpoint_every=10"]
    )
    assert code == 0
    return folder


def sdelab_command(capsys, *words):
    code = run(["sdelab", *(str(word) for word in words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_overrides_reach_the_run(trained):
    config = json.loads((trained / "run" / "config.json").read_text())
    assert config["sde"] == {"beta_max": 12.0, "name": "VP"}
    sde, score = sdelab.load(trained / "run")
    assert sde.beta_max == 12.0
    assert score.sde.beta_max == 12.0


def test_what_the_file_leaves_out_has_its_default_and_a_new_name_starts_its_section_anew(trained):
    def config(*overrides):
        return apply_overrides(load_config(str(trained / "config.py")), list(overrides))

    assert config("--config.sde.t_max=0.5")["sde"] == {"name": "VP", "beta_max": 20.0, "t_max": 0.5}
    assert config("--config.sde.name=VE", "--config.sde.sigma_max=7")["sde"] == {"name": "VE", "sigma_max": 7.0}
    assert config("--config.sde.name=VP")["sde"] == {"name": "VP", "beta_max": 20.0}
    network = config("--config.model.name=unet", "--config.model.dtype=bfloat16", "--config.model.multipliers=(1,2)")
    assert network["model"] == {"name": "unet", "dtype": "bfloat16", "multipliers": (1, 2)}
    assert split_overrides(["train", "--config.seed", "3", "--config=a", "--workdir", "b"]) == (
        ["train", "--config=a", "--workdir", "b"],
        ["--config.seed=3"],
    )


@pytest.mark.parametrize(
    "words",
    [
        ("help",),
        ("--help",),
        ("train", "--help"),
        ("sample", "--help"),
        ("evaluate", "--help"),
        ("report", "--help"),
        ("import", "--help"),
        ("export", "--help"),
    ],
)
def test_help_goes_to_the_output(capsys, words):
    code, out, err = sdelab_command(capsys, *words)
    assert code == 0
    assert out.startswith("usage: sdelab")
    assert err == ""


def test_no_command_is_an_error_with_the_usage(capsys):
    code, out, err = sdelab_command(capsys)
    assert (code, out) == (2, "")
    assert "usage: sdelab COMMAND" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "unknown command 'trian'. Did you mean 'train'"),
        ("train --workdir {0}/new", "--config is missing"),
        ("train --config {0}/config.py", "--workdir is missing"),
        ("train --config {0}/absent.py --workdir {0}/new", "{0}/absent.py"),
        (
            "train --config {0}/config.py --workdir {0}/new --config.sde.beta_maks=3",
            "unknown key of config.sde 'beta_maks'. Did you mean 'beta_max'",
        ),
        (
            "train --config {0}/config.py --workdir {0}/new --config.sed.beta_max=3",
            "unknown section of the config 'sed'. Did you mean",
        ),
        (
            "train --config {0}/config.py --workdir {0}/new --config.sede=3",
            "unknown section of the config 'sede'. Did you mean",
        ),
        ("train --config {0}/config.py --workdir {0}/new --config.loss.t_min=5", "config.loss: t_min = 5.0 is not"),
        ("train --config {0}/nothing.py --workdir {0}/new", "{0}/nothing.py is no config file"),
        ("train --config {0}/plain.py --workdir {0}/new", "get_config() returned a dict; accepted: ml_coll"),
        ("train --config {0}/digits.py --workdir {0}/new --config.model.multipliers=(1,1,1,1,1)", "multiples of 16"),
        ("train --config {0}/config.py --workdir {0}/config.py", "workdir = {0}/config.py is no directory that can"),
        ("train --config {0}/config.py --workdir {0}/new --config.sde.beta_max=abc", "beta_max=abc"),
        ("train --config {0}/config.py --workdir {0}/new --config.sde.beta_max=-3", "beta_max = -3.0 is not accepted"),
        (
            "train --config {0}/config.py --workdir {0}/new --config.sde.name=VPP",
            "unknown sde 'VPP'. Did you mean 'VP'",
        ),
        ("train --config {0}/config.py --workdir {0}/new --config.data.name=moons", "Did you mean 'two_moons'"),
        ("train --config {0}/config.py --wokdir {0}/new", "Unknown command line flag 'wokdir'. Did you mean: workdir"),
        (
            "train --config {0}/config.py --workdir {0}/run --config.sde.beta_max=13",
            "sde.beta_max: 12.0 in the run, 13.0 now",
        ),
        ("sample --workdir {0}/absent", "no run in {0}/absent"),
        ("sample --workdir {0}/run --solver ancestrale", "unknown solver 'ancestrale'. Did you mean 'ancestral'"),
        ("sample --workdir {0}/run --steps 0", "steps = 0 is not accepted"),
        ("sample --workdir {0}/run --count 0", "count = 0 is not accepted"),
        ("sample --workdir {0}/run --label 2", "--label=2 is not accepted; accepted: 0 to 1"),
        ("sample --workdir {0}/run --steps 5 --grid unifrom", "unknown grid 'unifrom'. Did you mean 'uniform'"),
        ("sample --workdir {0}/run --steps 5 --finish tweedy", "unknown finish 'tweedy'. Did you mean 'tweedie'"),
        ("sample --workdir {0}/run --solver ancestral --snr 0.1", "snr belongs to predictor_corrector"),
        ("sample --workdir {0}/run --solver tsit5 --steps 5 --rtol 1e-3", "steps and tolerances exclude each other"),
        ("sample --workdir {0}/run --solver tsit5 --stochasticity 1", "stochasticity belongs to the reverse SDE"),
        ("sample --workdir {0}/run --solver ancestral --rtol 1e-3", "Ancestral"),
        ("sample --workdir {0}/run --solver tsit5 --rtol 1e-9", "1e-09"),
        ("sample --workdir {0}/run --solver predictor_corrector --corrector_steps 0", "corrector_steps = 0 is not"),
        ("sample --workdir {0}/run 5", "'5' is not a flag"),
        ("sample --workdir {0}/run --steps 3 --output {0}/config.py/x.npz", "{0}/config.py is no directory that can"),
        (
            "sample --workdir {0}/run --output {0}/new.png",
            "new.png is not accepted; accepted: a path that ends in .npz",
        ),
        (
            "sample --workdir {0}/run --steps 3 --output {0}",
            " in it and no shards.json; accepted: a new or empty folder",
        ),
        ("sample --workdir {0}/run --batch 0", "batch = 0 is not accepted"),
        (
            "sample --workdir {0}/run --placement pmap",
            "(it averages gradients; data splits a batch alike); accepted: data",
        ),
        ("evaluate --workdir {0}/run --placement date", "--placement=date is not accepted; accepted: data, fsdp, jit"),
        ("report --workdir {0}/absent", "no run in {0}/absent"),
        ("report --workdir {0}/run --output {0}", "--output={0} is a directory"),
        ("evaluate --workdir {0}/run --likelihoods 1", "likelihoods=1 is not accepted"),
    ],
)
def test_bad_input_is_one_line_and_no_file(trained, capsys, words, message):
    before = {p: p.read_bytes() for p in (trained / "run").rglob("*") if p.is_file()}
    code, _, err = sdelab_command(capsys, *words.format(trained).split())
    assert code == 2
    assert err.startswith("sdelab: ")
    assert "Traceback" not in err
    assert message.format(trained) in err
    assert not (trained / "new").exists()
    assert {p: p.read_bytes() for p in (trained / "run").rglob("*") if p.is_file()} == before


def test_a_bug_keeps_its_traceback(trained, monkeypatch):
    def broken(*arguments, **options):
        np.zeros(3).reshape(2, 2)

    monkeypatch.setattr(importlib.import_module("sdelab.cli.sample"), "load_run", broken)
    with pytest.raises(ValueError, match="reshape"):
        run(["sdelab", "sample", "--workdir", str(trained / "run")])


def test_samples_are_those_of_the_library(trained, capsys):
    """The command and three lines of a notebook draw the same points."""
    output = trained / "drawn" / "points.npz"
    code, out, _ = sdelab_command(
        capsys, "sample", "--workdir", trained / "run", "--solver", "ancestral", "--steps", 20, "--count", 6,
        "--label", 1, "--seed", 5, "--output", output,
    )  # fmt: skip
    assert code == 0
    assert "6 by ancestral, from step 20" in out
    arrays = np.load(output)
    np.testing.assert_array_equal(arrays["label"], np.ones(6))
    sde, score = sdelab.load(trained / "run")
    process = sdelab.ReverseSDE(sde, score, condition=np.ones(6, np.int32))
    x = sdelab.sample(jax.random.key(5), process, (6, 2), solver=solvers.Ancestral(), grid=grids.uniform(sde, 20))
    np.testing.assert_array_equal(arrays["x"], x)
    np.testing.assert_array_equal(arrays["values"], x)  # points have no other scale
    assert output.with_name("points.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_of_a_run_is_written_where_it_is_asked_for(trained, capsys, tmp_path):
    code, out, _ = sdelab_command(capsys, "report", "--workdir", trained / "run", "--output", tmp_path / "page.html")
    assert (code, out) == (0, f"written to {tmp_path / 'page.html'}\n")
    assert "20 of 20, finished" in (tmp_path / "page.html").read_text()


def test_samples_need_no_data_and_a_suffix_is_not_doubled(trained, capsys, monkeypatch, tmp_path):
    def gone():
        raise FileNotFoundError("two_moons")

    monkeypatch.setitem(LOADERS, "two_moons", gone)
    code, _, _ = sdelab_command(
        capsys, "sample", "--workdir", trained / "run", "--steps", 3, "--count", 2, "--output", tmp_path / "a.npz"
    )
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "a.png"]


def test_fewer_steps_than_there_are_change_nothing(trained, capsys):
    before = {p: p.read_bytes() for p in (trained / "run").rglob("*") if p.is_file()}
    code, out, _ = sdelab_command(
        capsys, "train", "--config", trained / "config.py", "--workdir", trained / "run",
        "--config.sde.beta_max=12", "--config.run.steps=10",
    )  # fmt: skip
    assert code == 0
    assert "at step 20 already; nothing to do" in out
    assert {p: p.read_bytes() for p in (trained / "run").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("every", "words"), [(1, "The checkpoint of step"), (1000, "There is no checkpoint in")], ids=["some", "none"]
)
def test_a_run_that_diverges_says_what_is_left(trained, capsys, tmp_path, every, words):
    code, _, err = sdelab_command(
        capsys, "train", "--config", trained / "config.py", "--workdir", tmp_path, "--config.optim.clip_norm=0",
        "--config.optim.learning_rate=1e30", "--config.optim.warmup_steps=0", f"--config.run.checkpoint_every={every}",
    )  # fmt: skip
    assert code == 1
    assert words in err


def test_without_the_extra_there_is_a_line_and_no_file(trained, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    code, _, err = sdelab_command(
        capsys, "train", "--config", trained / "config.py", "--workdir", trained / "new",
        "--config.run.tensorboard=true",
    )  # fmt: skip
    assert code == 2
    assert "sdelab[tensorboard]" in err
    assert not (trained / "new").exists()


def test_a_torn_checkpoint_is_passed_over_in_words(trained, capsys, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "20" / "manifest.json").unlink()
    code, out, err = sdelab_command(capsys, "sample", "--workdir", tmp_path / "run", "--steps", 3, "--count", 2)
    assert code == 0
    assert "warning: checkpoint 20 is torn" in err
    assert "from step 10" in out


def test_a_table_of_another_process_is_refused(trained):
    sde, score = sdelab.load(trained / "run")
    process, arguments = choose(Options(solver="ancestral_smld", steps=5), sde, score)
    with pytest.raises(ValueError, match="the process that the table discretises"):
        sdelab.sample(jax.random.key(0), process.given(np.zeros(4, np.int32)), (4, 2), **arguments)


def settings_of(solver):
    # The root find of an implicit step may fail on a network; an adaptive solve then takes a smaller one.
    return {"rtol": 1e-3, "atol": 1e-3} if solver.startswith(("kencarp", "kvaerno", "implicit")) else {"steps": 50}


CATALOGUED = [{repr(solver) for solver in catalogue.values()} for catalogue in (DETERMINISTIC, STOCHASTIC)]
NOT_CATALOGUED = ["general_shark", "kencarp3", "kencarp5", "kvaerno4", "predictor_corrector", "reversible_heun"]


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "ancestral_smld"])
def test_every_solver_of_the_list_fits_its_process(trained, solver):
    """All but a few are of the catalogue: what they draw is held against exact answers in `tests/solvers`."""
    sde, score = sdelab.load(trained / "run")
    process, arguments = choose(Options(solver=solver, **settings_of(solver)), sde, score)
    given, chosen = process.given(np.zeros(4, np.int32)), arguments["solver"]
    assert (repr(chosen) in CATALOGUED[given.stochastic]) == (solver not in NOT_CATALOGUED)
    if isinstance(chosen, solvers.AbstractReverseSolver):
        chosen.check(given)  # it raises where the process is not one for it


@pytest.mark.parametrize("solver", [name for name in NOT_CATALOGUED if not name.startswith("kencarp")])  # as KenCarp4
@pytest.mark.slow
def test_those_that_are_not_of_the_catalogue_sample(trained, solver):
    """A process that ends where the network is exact: the untrained one is, for Gaussian data of its own scale."""
    sde, score = sdelab.load(trained / "run")
    process, arguments = choose(Options(solver=solver, **settings_of(solver)), sde, score)
    x = sdelab.sample(jax.random.key(0), process.given(np.zeros(64, np.int32)), (64, 2), **arguments)
    assert 0.7 < float(np.std(np.asarray(x))) < 1.4  # after 20 steps it is still near unit Gaussian


def test_the_parts_of_predictor_corrector_are_those_asked_for(trained):
    sde, score = sdelab.load(trained / "run")
    options = {"predictor": "ancestral", "corrector": "annealed_langevin", "sequence": "predictor_first", "snr": 0.1}
    _, arguments = choose(Options(solver="predictor_corrector", **options), sde, score)
    expected = solvers.PredictorCorrector(
        solvers.Ancestral(), solvers.AnnealedLangevin(snr=0.1), solvers.PredictorFirst()
    )
    assert arguments["solver"] == expected
    with pytest.raises(ValueError, match=r"unknown corrector 'langevine'\. Did you mean 'langevin'"):
        choose(Options(solver="predictor_corrector", corrector="langevine"), sde, score)
    with pytest.raises(ValueError, match="sequence belongs to predictor_corrector"):
        choose(Options(solver="ancestral", sequence="predictor_first"), sde, score)


def test_the_noise_of_edm_s_stochastic_sampler_is_that_asked_for(trained):
    sde, score = sdelab.load(trained / "run")
    published = {"s_churn": 40.0, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.003}
    _, arguments = choose(Options(solver="churn", steps=5, **published), sde, score)
    assert arguments["solver"] == solvers.Churn(solvers.Heun(), **published)
    with pytest.raises(ValueError, match="s_noise belongs to churn; heun has no such option"):
        choose(Options(solver="heun", s_noise=1.003), sde, score)
    with pytest.raises(ValueError, match=r"s_churn = -1\.0"):
        choose(Options(solver="churn", s_churn=-1.0), sde, score)


@pytest.mark.slow
def test_evaluation_holds_the_numbers_it_prints(trained, capsys):
    code, out, _ = sdelab_command(
        capsys, "evaluate", "--workdir", trained / "run", "--steps", 50, "--count", 200, "--likelihoods", 64
    )
    assert code == 0
    numbers = json.loads((trained / "run" / "evaluation.json").read_text())
    assert f"{numbers['energy_distance']:.4f}" in out
    # Two moons have a mean square of about 1: N(0, 1) has 0.5 log2(2 pi e) = 2.05 bits a dimension, the data less.
    assert 0.5 < numbers["bits_per_dim"] < 2.2
    assert numbers["bits_per_dim_error"] > 0.0
    assert numbers["sliced_wasserstein_train"] < numbers["sliced_wasserstein"]
    assert numbers["classifier_accuracy"] > 0.95
