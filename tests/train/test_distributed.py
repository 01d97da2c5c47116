"""Several processes find each other, go on from what others left, and end together, whatever ends one of them."""

import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from sdelab.train import NonFiniteMetric, fit, initialize, read_json_lines
from sdelab.train.checkpoint import newest_sound_step, read_record, read_state
from sdelab.train.distributed import CLUSTERS, HEARTBEAT_SECONDS, ending_together, find_cluster, from_main
from sdelab.train.run import Run
from sdelab.train.watchdog import GRACE
from tests.train.processes import gang, outcome, run

pytestmark = pytest.mark.filterwarnings("ignore:.*sharding.*")


def config(**changes):
    """A network with arrays that `fsdp` splits."""
    settings = {"steps": 20, "log_every": 5, "checkpoint_every": 10, **changes}
    return {
        "seed": 3,
        "sde": {"name": "VP"},
        "data": {"name": "two_moons"},
        "model": {"name": "mlp", "width": 64, "depth": 1, "classes": 2, "dropout": 0.1},
        "preconditioner": {"name": "edm", "data_std": 1.0},
        "loss": {},
        "optim": {"batch_size": 32, "learning_rate": 1e-3, "warmup_steps": 3},
        "ema": {"name": "warmup", "decay": 0.99},
        "run": settings,
    }


def vector(tree):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(tree)])


def parameters(workdir, like, step=20):
    assert newest_sound_step(workdir / "checkpoints").name == str(step)
    template = {"state": {"params": like, "ema": like}}
    state = read_state(workdir / "checkpoints" / str(step), template)["state"]
    return vector(state["params"]), vector(state["ema"])


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_on_one_and_on_four_devices(tmp_path):
    """To 1e-5 of the uninterrupted run of one device."""
    state = fit(config(), tmp_path / "whole")
    whole = vector(state["params"]), vector(state["ema"])
    run(2, 1, "train", json.dumps(config(steps=10, placement="fsdp")), tmp_path / "one")
    assert read_record(newest_sound_step(tmp_path / "one" / "checkpoints"))["step"] == 10
    shutil.copytree(tmp_path / "one", tmp_path / "four")
    fit(config(), tmp_path / "one")
    run(1, 4, "train", json.dumps(config(placement="data", steps_per_dispatch=5)), tmp_path / "four")
    for folder in ("one", "four"):
        for found, expected in zip(parameters(tmp_path / folder, state["params"]), whole, strict=True):
            assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
        rows = read_json_lines(tmp_path / folder / "metrics.jsonl")
        assert [row["step"] for row in rows] == [5, 10, 15, 20]  # one process writes them


LONG = {"steps": 10**6, "log_every": 20, "checkpoint_every": 10**6, "placement": "data"}


def wait_for_row(workdir, processes, limit=200.0):
    end = time.monotonic() + limit
    while time.monotonic() < end and all(process.poll() is None for process in processes):
        if (workdir / "metrics.jsonl").exists() and read_json_lines(workdir / "metrics.jsonl"):
            return
        time.sleep(0.1)
    raise AssertionError(
        "no row:\n" + "\n".join(process.communicate(timeout=5)[0] for process in processes if process.poll())
    )


def seconds_to_the_end(processes, since):
    codes, outputs = outcome(processes, limit=100.0)
    return time.monotonic() - since, codes, outputs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "kind"),
    [(1, signal.SIGKILL), (0, signal.SIGKILL), (0, signal.SIGSTOP)],
    ids=["killed", "coordinator", "stopped"],
)
def test_a_lost_process_ends_the_other_within_a_minute_with_stacks(tmp_path, lost, kind):
    """Process 0 coordinates the others; a stopped process keeps its connections."""
    with gang(2, 1, "train", json.dumps(config(**LONG, patience=15)), tmp_path) as processes:
        wait_for_row(tmp_path, processes)
        os.kill(processes[lost].pid, kind)
        seconds, (code,), (output,) = seconds_to_the_end([processes[1 - lost]], time.monotonic())
    assert seconds < 60
    assert code not in (0, 42)
    assert "File " in output, output
    assert any(words in output for words in (f"process {1 - lost} on", "heartbeat", "hangs", "Socket closed")), output


@pytest.mark.slow
def test_a_failing_process_ends_the_other_within_a_minute(tmp_path):
    begun = time.monotonic()
    with gang(2, 1, "train", json.dumps(config(**LONG)), tmp_path, "fail", 50) as processes:
        wait_for_row(tmp_path, processes)
        seconds, codes, outputs = seconds_to_the_end(processes, time.monotonic())
    assert seconds < 60, time.monotonic() - begun
    assert codes[1] == 1
    assert "ArithmeticError: told to fail" in outputs[1]
    assert "process 1 on" in outputs[1]
    assert codes[0] not in (0, 42)
    assert "File " in outputs[0], outputs[0]


@pytest.mark.slow
def test_a_hung_process_ends_all_with_a_message_and_stacks(tmp_path):
    patience = 10
    with gang(2, 1, "train", json.dumps(config(**LONG, patience=patience)), tmp_path, "hang", 50) as processes:
        wait_for_row(tmp_path, processes)
        seconds, codes, outputs = seconds_to_the_end(processes, time.monotonic())
    assert seconds < patience + GRACE + 10
    assert codes[1] == 1
    assert f"process 1 on {os.uname().nodename} hangs: nothing for 10 seconds while at step 51" in outputs[1]
    assert 'placements.py", line' in outputs[1]  # where it hangs
    assert codes[0] not in (0, 42)
    assert "hangs" in outputs[0] or "File " in outputs[0]


def test_the_default_patience_ends_a_hung_run_within_a_minute():
    assert Run(steps=1).patience + GRACE < 60
    assert HEARTBEAT_SECONDS < 60


@pytest.mark.slow
def test_asked_to_stop_one_of_two_both_save_the_same_step(tmp_path):
    with gang(2, 1, "train", json.dumps(config(**LONG)), tmp_path) as processes:
        wait_for_row(tmp_path, processes)
        processes[1].send_signal(signal.SIGTERM)
        codes, outputs = outcome(processes, limit=60.0)
    assert codes == [42, 42], outputs
    step = newest_sound_step(tmp_path / "checkpoints").name
    assert f"SIGTERM after step {step}: the state is saved" in outputs[0]


@pytest.mark.slow
def test_a_directory_that_the_hosts_do_not_share_is_found_at_the_start(tmp_path):
    with gang(2, 1, "train", json.dumps(config(placement="data")), tmp_path / "host%p") as processes:
        codes, outputs = outcome(processes, limit=120.0)
    assert 0 not in codes
    assert any("NotShared" in text and "processes 1 of 2 do not see" in text for text in outputs), outputs
    assert not (tmp_path / "host0" / "checkpoints").exists()


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    ("variables", "cluster"),
    [
        ({}, None),
        (SLURM, "slurm"),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, None),  # the batch script itself
        ({"OMPI_MCA_orte_hnp_uri": "1;tcp://10.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "4"}, "open_mpi"),
        ({"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "a,b"}, "gke_tpu"),
        ({"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_a_cluster_is_known_by_its_own_variables(variables, cluster):
    assert find_cluster(variables) == cluster


def test_what_the_clusters_say_reaches_jax(monkeypatch):
    """JAX's own reading of the variables of SLURM and Open MPI, and ours of when to ask it."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    initialize()
    assert calls == []
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    initialize()
    initialize("none")
    initialize("cloud_tpu")
    initialize(coordinator="n1:1234", processes=2, process=1)
    assert [call["cluster_detection_method"] for call in calls] == ["slurm", "gcetpu", "deactivate"]
    assert calls[2]["coordinator_address"] == "n1:1234"
    assert {call["heartbeat_timeout_seconds"] for call in calls} == {HEARTBEAT_SECONDS}
    from jax._src.clusters import ClusterEnv

    assert {method for method, _ in CLUSTERS.values()} - {None} <= {known.name for known in ClusterEnv._cluster_types}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cluster": "slrm"}, "unknown cluster 'slrm'. Did you mean 'slurm'"),
        ({"coordinator": "a:1"}, "processes, process not given"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "process = 2 is not accepted; accepted: 0 to .* = 1"),
    ],
)
def test_what_does_not_say_who_a_process_is_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        initialize(**arguments)


def test_alone_everything_is_as_ever():
    assert from_main(lambda: {"a": [1, None]}) == {"a": [1, None]}
    with pytest.raises(NonFiniteMetric), ending_together():
        raise NonFiniteMetric("as ever")
