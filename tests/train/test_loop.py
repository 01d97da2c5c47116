"""A resumed run equals an uninterrupted one bit for bit; a run that cannot go on stops with words, and keeps what it had."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.data import Batches, GreyLevels
from sdelab.train import CheckpointMismatch, NonFiniteMetric, WorkdirInUse, best_step, fit, load_run, read_json_lines
from sdelab.train.checkpoint import newest_sound_step, read_state
from sdelab.train.log import TIMES
from sdelab.train.starts import git_state
from sdelab.train.workdir import claim

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.as_users  # equal to the bit

RUN = """
import json, pathlib, sys
from sdelab.cli.train import train
sys.exit(train(json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])))
"""


def config(**changes):
    base = {
        "seed": 3,
        "sde": {"name": "VP", "beta_max": 12.0},
        "data": {"name": "two_moons"},
        "model": {"name": "mlp", "width": 16, "depth": 1, "classes": 2, "dropout": 0.1},
        "preconditioner": {"name": "edm", "data_std": 1.0},
        "loss": {},
        "optim": {"batch_size": 32, "learning_rate": 1e-3, "warmup_steps": 3},
        "ema": {"name": "warmup", "decay": 0.99},
        "run": {"steps": 30, "log_every": 4, "checkpoint_every": 7},
    }
    return {
        section: {**value, **changes.get(section, {})} if isinstance(value, dict) else value
        for section, value in base.items()
    }


def assert_equal_states(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def rows(workdir):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_json_lines(workdir / "metrics.jsonl")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, fit(config(), workdir)


@pytest.mark.as_users(again=True)
def test_a_run_in_pieces_equals_the_whole(whole, tmp_path):
    """Stops at 5 and 18, neither a checkpoint's nor a row's step."""
    for steps in (5, 18, 30):
        state = fit(config(run={"steps": steps}), tmp_path)
        assert int(state["step"]) == steps
    assert_equal_states(state, whole[1])
    assert rows(tmp_path) == rows(whole[0])
    starts = json.loads((tmp_path / "record.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 5, 18]
    assert starts[2]["command"] == sys.orig_argv
    assert starts[2]["devices"] == {jax.devices()[0].device_kind: jax.device_count()}


def test_what_is_checked_out_is_told(tmp_path):
    def git(*arguments):
        author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", "-C", tmp_path, *author, *arguments], check=True, capture_output=True, text=True)

    assert git_state(tmp_path) is None
    git("init", "--quiet")
    (tmp_path / "model.py").write_text("x = 1")
    git("add", "model.py")
    git("commit", "--quiet", "-m", "first")
    revision = git("rev-parse", "HEAD").stdout.strip()
    (tmp_path / "notes").write_text("not tracked")
    assert git_state(tmp_path) == {"revision": revision, "dirty": False}
    (tmp_path / "model.py").write_text("x = 2")
    assert git_state(tmp_path) == {"revision": revision, "dirty": True}


def test_the_best_checkpoint_of_a_run_stays_and_can_be_loaded(tmp_path):
    """At a learning rate that is too high the loss grows, so that an early checkpoint is the best."""
    run = {"steps": 40, "log_every": 5, "checkpoint_every": 5, "keep": 2, "keep_best": 1}
    fit(config(optim={"learning_rate": 1.0, "warmup_steps": 60}, run=run), tmp_path)
    losses = {row["step"]: row["loss"] for row in rows(tmp_path)}
    best = min(losses, key=losses.__getitem__)
    assert best < 35
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [best, 35, 40]
    assert best_step(tmp_path) == best
    assert load_run(tmp_path, step=best).step == best
    assert load_run(tmp_path).step == 40
    with pytest.raises(ValueError, match=r"checkpoint_every = 7 is not accepted with keep_best = 1: .* log_every = 4"):
        fit(config(run={"keep_best": 1}), tmp_path)


def test_what_a_finished_run_leaves(whole):
    workdir, state = whole
    assert [row["step"] for row in rows(workdir)] == [4, 8, 12, 16, 20, 24, 28]
    assert json.loads((workdir / "config.json").read_text())["sde"]["beta_max"] == 12.0
    step = newest_sound_step(workdir / "checkpoints")
    assert step.name == "30"
    saved = read_state(step, {"state": {"ema": jax.eval_shape(lambda: state["ema"])}})["state"]["ema"]
    assert_equal_states(saved, state["ema"])
    assert_equal_states(fit(config(), workdir), state)  # nothing is left to do


@pytest.mark.slow
def test_pictures_change_nothing_and_a_run_in_pieces_draws_the_same(whole, tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        assert_equal_states(fit(config(run={"sample_every": 10}), tmp_path / "whole"), whole[1])
    assert rows(tmp_path / "whole") == rows(whole[0])
    assert re.search(r"30/30 \[\d\d:\d\d<\d\d:\d\d, .*loss \d\.\d{4}, \d+ images/s", terminal.getvalue())
    fit(config(run={"sample_every": 10, "steps": 12}), tmp_path / "pieces")
    shutil.copyfile(tmp_path / "whole/pictures/samples/00000010.png", tmp_path / "pieces/pictures/samples/00000025.png")
    fit(config(run={"sample_every": 10}), tmp_path / "pieces")
    drawn = [{p.relative_to(d): p.read_bytes() for p in d.rglob("*.png")} for d in tmp_path.iterdir()]
    assert {path.stem for path in drawn[0]} == {"00000010", "00000020", "00000030"}
    assert drawn[0] == drawn[1]
    losses = [read_json_lines(tmp_path / name / "loss_by_time.jsonl") for name in ("whole", "pieces")]
    assert losses[0] == losses[1]


def test_the_loss_falls(whole):
    """From the loss of the untrained network, which knows the Gaussian of the data's size and nothing else."""
    losses = [row["loss"] for row in rows(whole[0])]
    assert np.mean(losses[-2:]) < np.mean(losses[:2])


def test_another_configuration_is_refused_and_the_keys_are_shown(whole):
    workdir = whole[0]
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    other = config(sde={"beta_max": 20.0}, model={"width": 24})
    with pytest.raises(
        CheckpointMismatch, match=r"(?s)model\.width: 16 in .*, 24 now.*sde\.beta_max: 12\.0 in .*, 20\.0"
    ):
        fit(other, workdir)
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    """A learning rate that overflows: warm-up keeps the first steps finite."""
    good = config(
        optim={"learning_rate": 1e30, "warmup_steps": 0, "clip_norm": 0.0}, run={"checkpoint_every": 1, "steps": 30}
    )
    with pytest.raises(NonFiniteMetric, match=r"(loss|grad_norm).* not finite at step \d+"):
        fit(good, tmp_path)
    ema = read_state(
        newest_sound_step(tmp_path / "checkpoints"), {"state": {"step": jax.ShapeDtypeStruct((), "int32")}}
    )
    assert 1 <= int(ema["state"]["step"]) < 30


def test_a_torn_newest_checkpoint_is_trained_again(whole, tmp_path):
    fit(config(run={"steps": 21}), tmp_path)
    (tmp_path / "checkpoints" / "21" / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="checkpoint 21 is torn"):
        state = fit(config(), tmp_path)
    assert_equal_states(state, whole[1])
    assert rows(tmp_path) == rows(whole[0])


def test_when_all_checkpoints_are_torn_the_same_run_starts_again_and_another_is_refused(whole, tmp_path):
    fit(config(run={"steps": 7}), tmp_path)
    (tmp_path / "checkpoints" / "7" / "manifest.json").unlink()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(CheckpointMismatch, match=r"model\.width: 16 in the run, 24 now"):
        fit(config(model={"width": 24}), tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    with pytest.warns(UserWarning, match="checkpoint 7 is torn"):
        state = fit(config(), tmp_path)
    assert_equal_states(state, whole[1])
    assert rows(tmp_path) == rows(whole[0])


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(ValueError, match=r"record\.json is damaged"):
        fit(config(), tmp_path)


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    with claim(tmp_path), pytest.raises(WorkdirInUse, match=f"another process is training in {tmp_path}"):
        fit(config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert int(fit(config(run={"steps": 1}), tmp_path)["step"]) == 1


@pytest.mark.slow
@pytest.mark.as_users(again=True)
def test_a_network_of_convolutions_resumes_to_the_bit(tmp_path):
    network = {"name": "unet", "channels": 8, "multipliers": [1], "head_size": 8, "classes": 10, "dropout": 0.1}
    digits = {**config(), "data": {"name": "digits"}, "model": network}

    def train(steps, folder):
        return fit({**digits, "run": {"steps": steps, "checkpoint_every": 5}}, tmp_path / folder)

    train(7, "pieces")
    assert_equal_states(train(12, "pieces"), train(12, "whole"))
    run = load_run(tmp_path / "whole")  # its config is JSON, where tuples are lists
    assert run.scaling == GreyLevels(17)
    x = run.score(jnp.zeros((2, 8, 8, 1)), jnp.asarray(0.5), jnp.zeros(2, jnp.int32))
    assert np.all(np.isfinite(x))


class TornData(Batches):
    def batch(self, step, positions=None):
        if step == 17:
            raise ArithmeticError("torn")
        return super().batch(step, positions)


def test_an_error_of_the_data_comes_at_its_step_and_the_run_can_be_resumed(whole, tmp_path, monkeypatch):
    """The batch is made ahead, and the error is kept until it is due."""
    with monkeypatch.context() as patch:
        patch.setattr("sdelab.train.loop.Batches", TornData)
        with pytest.raises(ArithmeticError, match="torn"):
            fit(config(run={"prefetch": 4, "prefetch_threads": 3}), tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [4, 8, 12, 16]
    assert newest_sound_step(tmp_path / "checkpoints").name == "14"
    assert_equal_states(fit(config(), tmp_path), whole[1])
    assert rows(tmp_path) == rows(whole[0])
    assert all(0.0 <= row["data_wait"] <= 1.0 for row in read_json_lines(tmp_path / "metrics.jsonl"))


def test_a_checkpoint_that_cannot_be_written_stops_the_run(tmp_path, monkeypatch):
    import sdelab.train.checkpoint as module

    def full_disk(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_manifest", full_disk)
    with pytest.raises(OSError, match="No space"):
        fit(config(), tmp_path)


def start(workdir, **changes):
    command = [sys.executable, "-c", RUN, json.dumps(config(**changes)), str(workdir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, cwd=workdir, stderr=subprocess.PIPE, text=True)


def wait_for_row(workdir, process, step, limit=120.0):
    path, end = workdir / "metrics.jsonl", time.monotonic() + limit
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and any(row["step"] >= step for row in read_json_lines(path)):
            return
        time.sleep(0.02)
    raise AssertionError(f"no row of step {step}: {process.communicate()[1]}")


LONG = {"run": {"steps": 3000, "log_every": 50, "checkpoint_every": 100}}


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("long")
    return workdir, fit(config(**LONG), workdir)


OFTEN = {"run": {"steps": 1500, "log_every": 25, "checkpoint_every": 25}}


@pytest.mark.slow
def test_killed_twenty_times_at_any_moment_it_ends_at_the_same_bits(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_ENABLE_COMPILATION_CACHE": "true"}
    command = [sys.executable, "-m", "tests.train.kills", json.dumps(config(**OFTEN)), str(tmp_path), "7", "20"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    kills = json.loads((tmp_path / "kills.json").read_text())
    assert [kill["killed"] for kill in kills] == [True] * 20  # the run had not come to its end
    assert sum(kill["during_a_save"] for kill in kills) >= 3, kills
    assert len({kill["newest"] for kill in kills}) >= 4, kills
    whole, killed = (fit(config(**OFTEN), tmp_path / folder) for folder in ("whole", "killed"))  # nothing is left to do
    assert int(killed["step"]) == 1500
    assert_equal_states(killed, whole)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_exits_with_its_own_code(long_run, tmp_path, kind):
    process = start(tmp_path, **LONG)
    wait_for_row(tmp_path, process, 200)
    process.send_signal(kind)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 42, error
    assert f"{kind.name} after step" in error
    saved = int(newest_sound_step(tmp_path / "checkpoints").name)
    assert 200 <= saved < 3000
    assert f"after step {saved}:" in error
    assert_equal_states(fit(config(**LONG), tmp_path), long_run[1])
