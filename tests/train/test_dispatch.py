"""Several steps in one call, traced or not, kept compiled or not: the numbers stay as they are."""

import json

import jax
import numpy as np
import pytest

from sdelab.train import fit, read_json_lines
from sdelab.train.profile import Trace
from tests.train.processes import run
from tests.train.test_distributed import config, vector

pytestmark = pytest.mark.as_users  # equal to the bit


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("plain")
    return workdir, fit(config(), workdir)


def test_several_steps_a_call_give_the_same_numbers_rows_and_checkpoints(plain, tmp_path):
    """Of calls of 3, between rows of 5 and a checkpoint of 10, one step at a time where they do not fit."""
    state = fit(config(steps_per_dispatch=3), tmp_path)
    way = np.linalg.norm(vector(plain[1]["params"]) - vector(plain[1]["ema"]))
    assert np.linalg.norm(vector(state["params"]) - vector(plain[1]["params"])) < 1e-5 * way
    ours, theirs = (read_json_lines(workdir / "metrics.jsonl") for workdir in (tmp_path, plain[0]))
    for a, b in zip(ours, theirs, strict=True):
        assert a["step"] == b["step"]
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    assert (tmp_path / "checkpoints" / "10").is_dir()


def test_a_trace_holds_the_chosen_steps_and_changes_nothing(plain, tmp_path):
    state = fit(config(), tmp_path, profile=(4, 6))
    jax.tree.map(np.testing.assert_array_equal, state, plain[1])
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"train" in trace.read_bytes()


def test_steps_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"profile = 0:3 is not accepted; accepted: FIRST:LAST"):
        Trace(tmp_path, 0, 3)
    with pytest.raises(ValueError, match="profile = 5:3 is not accepted"):
        Trace(tmp_path, 5, 3)


@pytest.mark.slow
def test_a_second_run_takes_its_programs_from_the_cache_and_has_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    programs, states = [], []
    for folder in ("first", "second"):
        run(1, 1, "train", json.dumps(config(steps=4)), tmp_path / folder)
        programs.append({path.name for path in (tmp_path / "cache").glob("*-cache")})
        states.append(fit(config(steps=4), tmp_path / folder))
    assert programs[0]
    assert programs[1] == programs[0]
    jax.tree.map(np.testing.assert_array_equal, *states)
