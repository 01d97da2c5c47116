"""`sdelab import`: from a file that the real writer made to samples, and one clear line for what is wrong."""

import importlib.machinery
import json
import os
import pickle
import sys
import types

import jax
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from sdelab.cli.main import run
from sdelab.data import Dataset, GreyLevels, registry
from sdelab.train import Checkpoints
from tests.interop.real_files import network, restore

EDM, TORCH, FLAX = (
    "edm_iDDPMPrecond_DhariwalUNet",
    "score_sde_ddpm_vp_continuous",
    "jax_score_sde_ncsnpp_ve_progressive_residual_fir",
)


def sdelab_command(capsys, *words):
    code = run(["sdelab", *(str(word) for word in words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("import")
    restore(EDM, folder / "network.pkl")
    restore(TORCH, folder / "checkpoint_8.pth")
    restore(FLAX, folder / "checkpoint_8")
    (folder / "hostile.pkl").write_bytes(pickle.dumps(os.getcwd))
    (folder / "torn.json").write_text("{")
    (folder / "list.json").write_text("[1]")
    (folder / "config.json").write_text(json.dumps(network(FLAX)["meta"]["config"]))
    (folder / "config.py").write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({network(TORCH)['meta']['config']!r})\n"
    )
    return folder


@pytest.fixture(scope="module")
def imported(folder):
    words = ["sdelab", "import", "--from=edm", str(folder / "network.pkl"), "--workdir", str(folder / "run")]
    assert run(words) == 0
    return folder / "run"


@pytest.mark.slow
def test_an_imported_run_is_sampled_like_a_trained_one(imported, capsys):
    words = ("--solver", "ddim", "--steps", 3, "--grid", "edm", "--count", 2, "--seed", 5)
    code, out, _ = sdelab_command(capsys, "sample", "--workdir", imported, *words)
    assert code == 0
    assert "2 by ddim, from step 0" in out
    arrays = np.load(imported / "samples.npz")
    sde, score = sdelab.load(imported)
    flow = sdelab.ProbabilityFlow(sde, score)
    x = sdelab.sample(jax.random.key(5), flow, (2, 16, 16, 3), solver=solvers.DDIM(), grid=grids.edm(sde, 3))
    np.testing.assert_array_equal(arrays["x"], x)
    assert arrays["values"].dtype == np.uint8
    assert (imported / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_says_what_it_placed(folder, capsys, tmp_path):
    words = ("import", "--from=edm", folder / "network.pkl", "--workdir", tmp_path / "run")
    code, out, _ = sdelab_command(capsys, *words)
    assert code == 0
    weights = network(EDM)["weights"]
    buffers = [name for name in weights if name == "u" or name.endswith("resample_filter")]
    variance = sum(weights[f"model.out_conv.{kind}"].size // 2 for kind in ("weight", "bias"))
    numbers = sum(array.size for name, array in weights.items() if name not in buffers) - variance
    assert f"{numbers} in {len(weights) - len(buffers)} arrays; the other {len(buffers)} of the file" in out
    assert "EDM, iddpm" in out
    assert sdelab_command(capsys, *words)[0] == 2  # it holds a run now


def test_without_a_data_set_evaluation_says_how_to_give_one(imported, capsys):
    code, _, err = sdelab_command(capsys, "evaluate", "--workdir", imported, "--steps", 3)
    assert (code, err.count("\n")) == (2, 1)
    assert "this run has no data set (`sdelab import --data` gives it one)" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--from=score_sde_flax", "{0}/checkpoint_8", "--config={0}/config.json", "--set=training.sde=vesde"),
        ("--from=score_sde_torch", "{0}/checkpoint_8.pth", "--config={0}/config.py", "--set", "training.sde=subvpsde"),
        (
            "--from=score_sde_torch", "{0}/checkpoint_8.pth", "--config=vp/ddpm/cifar10_continuous", "--set=model.nf=32",
            "--set=model.ch_mult=(1,1)", "--set=model.num_res_blocks=1", "--set=model.attn_resolutions=[8]",
            "--set=data.image_size=16", "--weights=raw",
        ),
    ],
    ids=["json", "python", "name"],
)  # fmt: skip
def test_a_configuration_is_a_file_or_a_name(folder, capsys, tmp_path, words):
    words = [word.format(folder) for word in words]
    code, out, _ = sdelab_command(capsys, "import", *words, "--workdir", tmp_path / "run")
    assert code == 0
    assert ("raw, of step 7" in out) == ("--weights=raw" in words)
    sde, _ = sdelab.load(tmp_path / "run")
    assert type(sde) is {"vesde": sdelab.VE, "subvpsde": sdelab.SubVP}.get(words[-1].split("=")[-1], sdelab.VP)


@pytest.mark.slow
def test_an_imported_run_is_evaluated(folder, capsys, tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)

    def load(low=-1.0, high=1.0):
        return Dataset("images", values[:48], values[48:], GreyLevels(256, low, high))

    monkeypatch.setitem(registry.LOADERS, "images", load)
    code, out, _ = sdelab_command(
        capsys, "import", "--from=score_sde_torch", folder / "checkpoint_8.pth", "--config", folder / "config.py",
        "--set=training.sde=vpsde", "--workdir", tmp_path / "run", "--data=images",
    )  # fmt: skip
    assert code == 0
    assert "images" in out
    code, out, _ = sdelab_command(
        capsys, "evaluate", "--workdir", tmp_path / "run", "--steps", 3, "--count", 4, "--likelihoods", 2
    )
    assert code == 0
    assert np.isfinite(json.loads((tmp_path / "run" / "evaluation.json").read_text())["bits_per_dim"])


@pytest.mark.parametrize("torch", [True, False])
def test_a_published_file_is_run_where_it_lies_with_torch_or_without(folder, capsys, tmp_path, monkeypatch, torch):
    """It imports its defaults from the folder above `configs`, and asks torch for a device, which is no part of a configuration."""
    place = tmp_path / "score_sde" / "configs" / "vp"
    place.mkdir(parents=True)
    (place.parent / "default.py").write_text(
        "import torch\nfrom ml_collections import ConfigDict\n\n\n"
        f"def get_default_configs():\n    config = ConfigDict({network(TORCH)['meta']['config']!r})\n"
        "    config.device = torch.device('cuda:0') if torch.cuda.is_available() else torch.device('cpu')\n    return config\n"
    )
    (place / "small.py").write_text(
        "from configs.default import get_default_configs\n\n\n"
        "def get_config():\n    config = get_default_configs()\n    config.training.sde = 'vpsde'\n    return config\n"
    )
    if torch:  # as an object of torch's that JSON does not know
        module = types.ModuleType("torch")
        module.device, module.cuda = lambda name: {name}, types.SimpleNamespace(is_available=lambda: False)
        module.__spec__ = importlib.machinery.ModuleSpec("torch", None, origin="here")
        monkeypatch.setitem(sys.modules, "torch", module)
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
            monkeypatch.delitem(sys.modules, name)

    def seen():
        return list(sys.path), sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "configs"))

    before = seen()
    words = ["--from=score_sde_torch", folder / "checkpoint_8.pth", "--config", place / "small.py"]
    code, _, err = sdelab_command(capsys, "import", *words, "--workdir", tmp_path / "run")
    assert (code, err) == (0, "")
    assert "training" in json.loads((tmp_path / "run" / "imported.json").read_text())["published"]
    (place.parents[1] / "shared_words.py").write_text("SDE = 'vpsde'\n")
    (place / "small.py").write_text(
        (place / "small.py").read_text().replace("'vpsde'", "__import__('shared_words').SDE")
    )
    assert sdelab_command(capsys, "import", *words, "--workdir", tmp_path / "sibling")[0] == 0
    assert "shared_words" not in sys.modules
    assert seen() == before
    (place / "small.py").write_text("import absent_module\n")
    code, _, err = sdelab_command(capsys, "import", *words, "--workdir", tmp_path / "other")
    assert code == 2
    assert "small.py cannot be run: ModuleNotFoundError: No module named 'absent_module'" in err


def test_an_import_that_fails_while_it_writes_leaves_no_run(folder, capsys, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    words = ["import", "--from=edm", folder / "network.pkl", "--workdir", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", full)
        with pytest.raises(OSError, match="no space left"):
            sdelab_command(capsys, *words)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name != ".lock"]
    (tmp_path / "run" / "config.json").write_text("mine")
    assert "holds config.json; use another workdir" in sdelab_command(capsys, *words)[2]
    assert (tmp_path / "run" / "config.json").read_text() == "mine"
    (tmp_path / "run" / "config.json").unlink()
    assert sdelab_command(capsys, *words)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("import {0}/network.pkl --workdir {0}/new", "--from is missing"),
        ("import --from edm {0}/network.pkl", "--workdir is missing"),
        ("import --from edm --workdir {0}/new", "FILE is missing; `sdelab import --help` says what it is"),
        ("import --from edm {0}/network.pkl {0}/x --workdir {0}/new", "'{0}/x' is not a flag of `sdelab import`"),
        ("import --from score_sde {0}/checkpoint_8 --workdir {0}/new", "unknown --from 'score_sde'. Did you"),
        ("import --from edm {0}/absent.pkl --workdir {0}/new", "FILE = {0}/absent.pkl: there is no such file"),
        ("import --from edm {0}/hostile.pkl --workdir {0}/new", "getcwd, which is neither an array nor a container"),
        ("import --from edm {0}/checkpoint_8 --workdir {0}/new", "{0}/checkpoint_8 is torn, or not of this format"),
        ("import --from edm {0}/network.pkl --workdir {0}/new --weights raw", "the file holds averaged weights only"),
        ("import --from edm {0}/network.pkl --workdir {0}/new --set dropot=0.2", "'dropot'. Did you mean 'dropout'"),
        ("import --from edm {0}/network.pkl --workdir {0}/new --set class_name=EDMPrec", "EDM 'EDMPrec'. Did you mean 'EDMPrecond'"),
        ("import --from edm {0}/network.pkl --workdir {0}/new --set img_channels=2", "do not fit the network"),
        ("import --from edm {0}/network.pkl --workdir {0}/new --data mnis", "Did you mean 'mnist'"),
        ("import --from edm {0}/network.pkl --workdir {0}/new --config vp/cifar", "--config=vp/cifar: there is no such file. FILE holds"),
        ("import --from score_sde_torch {0}/config.py --workdir {0}/new --config {0}/checkpoint_8.pth", "a name, a .json or a .py"),
        ("import --from edm {0}/network.pkl --workdir {0}/new --data mnist --data_option name=x", "--data_option=name=x is not accepted"),
        ("import --from edm {0}/network.pkl --workdir {0}/new --set channel_mult=4", "channel_mult = 4 is not accepted; channel_mult must"),
        ("import --from edm {0}/checkpoint_8.pth --workdir {0}/new", "checkpoint_8.pth: it is not a checkpoint of EDM: it holds"),
        ("import --from edm {0}/checkpoint_8.pth --workdir {0}/new", "It can be read as score_sde_torch"),
        ("import --from edm {0}/checkpoint_8 --workdir {0}/new", "It can be read as score_sde_flax"),
        ("import --from score_sde_torch --config vp/cifar10_ddpmpp {0}/network.pkl --workdir {0}/new", "It can be read as edm"),
        ("import --from edm {0}/network.pkl --workdir {0}/new --data_option size=8", "--data_option=size=8 needs --data"),
        ("import --from edm {0}/network.pkl --workdir {0}/new --data mnist --data_option size", "--data_option=size is not accepted"),
        ("import --from edm {0}/network.pkl --workdir {0}/network.pkl", "{0}/network.pkl is no directory that can"),
        ("import --from score_sde_flax {0}/checkpoint_8 --workdir {0}/new", "--config is missing: the checkpoint"),
        ("import --from score_sde_flax {0}/checkpoint_8 --config vp/cifar --workdir {0}/new", "and unknown configuration 'vp/cifar'"),
        ("import --from score_sde_flax {0}/checkpoint_8 --config {0}/torn.json --workdir {0}/new", "torn.json is no JSON"),
        ("import --from score_sde_flax {0}/checkpoint_8 --config {0}/list.json --workdir {0}/new", "list.json is no configuration"),
        ("import --from score_sde_flax {0}/checkpoint_8 --config {0}/config.json --workdir {0}/new", "unknown training.sde"),
        ("import --from score_sde_flax {0}/checkpoint_8 --config {0}/config.json --set nf --workdir {0}/new", "set = 'nf' is not accepted"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_no_file(folder, capsys, words, message):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, _, err = sdelab_command(capsys, *words.format(folder).split())
    assert code == 2
    assert err.startswith("sdelab: ")
    assert "Traceback" not in err
    assert message.format(folder) in err
    assert not (folder / "new").exists()
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
