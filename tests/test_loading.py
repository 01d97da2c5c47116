"""`sdelab.load` gives back the process and the averaged weights of a run."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab.train import fit

CONFIG = {
    "seed": 1,
    "sde": {"name": "VE", "sigma_max": 7.0},
    "data": {"name": "two_moons"},
    "model": {"name": "mlp", "width": 8, "depth": 1, "classes": 2},
    "preconditioner": {"name": "edm", "data_std": 0.9},
    "loss": {},
    "optim": {"batch_size": 16, "learning_rate": 1e-2, "warmup_steps": 0},
    "ema": {"name": "constant", "decay": 0.5},
    "run": {"steps": 8, "checkpoint_every": 8},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("load")
    return workdir, fit(CONFIG, workdir)


def test_the_score_is_that_of_the_averaged_weights(trained):
    workdir, state = trained
    sde, score = sdelab.load(workdir)
    assert (type(sde), sde.sigma_max) == (sdelab.VE, 7.0)
    jax.tree.map(np.testing.assert_array_equal, score.params, state["ema"])
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (state["ema"], state["params"])), strict=True))
    x, t, label = jnp.ones((3, 2)), jnp.full(3, 0.5), jnp.array([0, 1, 1], jnp.int32)
    np.testing.assert_allclose(score(x, t, label), -score.noise(x, t, label) / sde.sigma(0.5), rtol=1e-5)
    assert np.any(np.asarray(score(x, t, label))[0] != np.asarray(score(x, t, label))[1])


def test_the_data_are_not_needed(trained, monkeypatch):
    monkeypatch.setattr(sys.modules["sdelab.train.build"], "LOADERS", {})
    sdelab.load(trained[0])


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run in"):
        sdelab.load(tmp_path / "absent")
