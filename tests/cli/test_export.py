"""`sdelab export`: what is read back by the format's own library is what the run holds."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import sdelab
from sdelab.cli.base_config import toy_config
from sdelab.cli.main import run
from sdelab.data import Unscaled
from sdelab.interop.safetensors_file import read_safetensors, write_safetensors
from sdelab.train import Checkpoints, Reconstruction, init_params, load_run, save_average
from sdelab.train.record import record_of


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run at step 20, whose average is twice its weights plus one. A further one, `slow`, and one made after it, are 2 and 3."""
    folder = tmp_path_factory.mktemp("export")
    config = toy_config("two_moons", "VP")
    config.model.width, config.model.depth = 8, 1
    config = {**config.to_dict(), "averages": {"slow": {}}}
    params = init_params(config, (2,))
    state = {"state": {"params": params, "ema": jax.tree.map(lambda leaf: 2.0 * leaf + 1.0, params)}}
    slow, made = (jax.tree.map(lambda leaf, value=value: jnp.full_like(leaf, value), params) for value in (2.0, 3.0))
    state["state"]["averages"] = {"slow": slow}
    with Checkpoints(folder / "run" / "checkpoints") as checkpoints:
        checkpoints.save(20, state, {**record_of(config, None, (2,), Unscaled()), "step": 20})
    save_average(folder / "run", "wide", Reconstruction(made, step=20, sigma_rel=0.2, stored=1, residual=0.0))
    (folder / "file").write_text("")
    return folder


def leaves(params):
    return {".".join(entry.key for entry in path): np.asarray(x) for path, x in jax.tree.leaves_with_path(params)}


@pytest.mark.parametrize("weights", ["averaged", "raw"])
def test_a_file_holds_the_weights_it_names(workdir, capsys, tmp_path, weights):
    path = tmp_path / "out" / "model.safetensors"
    code = run(["sdelab", "export", "--workdir", str(workdir / "run"), "--out", str(path), "--weights", weights])
    assert code == 0
    assert f"{weights}, from step 20" in capsys.readouterr().out
    trained = load_run(workdir / "run", weights)
    expected, other = leaves(trained.score.params), leaves(load_run(workdir / "run", "raw").score.params)
    found = load_file(path)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], name)
        np.testing.assert_array_equal(array, 2.0 * other[name] + 1.0 if weights == "averaged" else other[name], name)
    with safe_open(path, "numpy") as file:
        told = {key: json.loads(value) for key, value in file.metadata().items()}
    assert told["config"] == trained.config
    assert (told["weights"], told["step"], told["record"]["data"]["event_shape"]) == (weights, 20, [2])
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("weights", "value"), [("slow", 2.0), ("wide", 3.0)])
def test_further_averages_are_exported_by_their_names(workdir, tmp_path, weights, value):
    path = tmp_path / "a.safetensors"
    assert run(["sdelab", "export", "--workdir", str(workdir / "run"), "--out", str(path), "--weights", weights]) == 0
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(array, value, name)


def test_the_help_says_which_weights_there_are(capsys):
    assert run(["sdelab", "export", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "averaged, ema, raw, one of the config's averages, or one that `sdelab ema` made" in words


def test_by_default_the_weights_are_those_that_are_sampled_with(workdir, tmp_path):
    path = tmp_path / "a.safetensors"
    assert run(["sdelab", "export", "--workdir", str(workdir / "run"), "--out", str(path)]) == 0
    expected = leaves(sdelab.load(workdir / "run")[1].params)
    for name, array in read_safetensors(path)[0].items():
        np.testing.assert_array_equal(array, expected[name], name)


def test_an_array_is_written_as_it_is_indexed_and_not_as_it_lies(workdir, tmp_path):
    """The library writes what it finds in memory: a transposed array would come back as another one."""
    transposed = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": {"c": jnp.ones(2, jnp.bfloat16)}}
    trained = load_run(workdir / "run")
    trained = dataclasses.replace(trained, score=dataclasses.replace(trained.score, params=transposed))
    arrays, _ = read_safetensors(write_safetensors(tmp_path / "a.safetensors", trained))
    np.testing.assert_array_equal(arrays["a"], transposed["a"])
    assert arrays["b.c"].dtype.name == "bfloat16"
    np.testing.assert_array_equal(arrays["b.c"].astype(np.float32), np.ones(2, np.float32))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("export --workdir {0}/run", "--out is missing"),
        ("export --workdir {0}/run --out {0}/model.pt", "accepted: a path that ends in .safetensors"),
        ("export --workdir {0}/absent --out {0}/model.safetensors", "no run in {0}/absent"),
        ("export --workdir {0}/run --out {0}/file/a.safetensors", "{0}/file is no directory that can"),
        (
            "export --workdir {0}/run --out {0}/model.safetensors --weights avraged",
            "unknown weights 'avraged'. Did you mean 'averaged'? Known: averaged, ema, raw, slow, wide.",
        ),
    ],
)
def test_bad_input_is_one_line_and_no_file(workdir, capsys, words, message):
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    assert run(["sdelab", *words.format(workdir).split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("sdelab: ")
    assert message.format(workdir) in err
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before
