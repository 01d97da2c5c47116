"""`sdelab.load` gives back the process and the averaged weights of a run."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab.cli.checkpoint import chosen_step
from sdelab.train import fit, read_json_lines

CONFIG = {
    "seed": 1,
    "sde": {"name": "VE", "sigma_max": 7.0},
    "data": {"name": "two_moons"},
    "model": {"name": "mlp", "width": 8, "depth": 1, "classes": 2},
    "preconditioner": {"name": "edm", "data_std": 0.9},
    "loss": {},
    "optim": {"batch_size": 16, "learning_rate": 1e-2, "warmup_steps": 0},
    "ema": {"name": "constant", "decay": 0.5},
    "run": {"steps": 8, "checkpoint_every": 4, "log_every": 4},
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


def test_a_checkpoint_can_be_chosen(trained):
    workdir = trained[0]
    early, late = (sdelab.load(workdir, step=step)[1].params for step in (4, 8))
    jax.tree.map(np.testing.assert_array_equal, late, trained[1]["ema"])
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (early, late)), strict=True))
    losses = {row["step"]: row["loss"] for row in read_json_lines(workdir / "metrics.jsonl")}
    best = min(losses, key=losses.__getitem__)
    assert [chosen_step(workdir, word) for word in ("latest", "best", "4")] == [None, best, 4]
    with pytest.raises(ValueError, match=r"--checkpoint=newest is not accepted; accepted: latest, best, or a step\."):
        chosen_step(workdir, "newest")
    with pytest.raises(ValueError, match=r"step = 7 is not accepted; checkpoints in .*: 4, 8\."):
        sdelab.load(workdir, step=7)


def test_the_data_are_not_needed(trained, monkeypatch):
    monkeypatch.setattr(sys.modules["sdelab.train.build"], "LOADERS", {})
    sdelab.load(trained[0])


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run in"):
        sdelab.load(tmp_path / "absent")
