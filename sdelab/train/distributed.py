"""Several processes that train one run, or sample from it: how they find each other, agree, and end together."""

import contextlib
import faulthandler
import json
import os
import secrets
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sdelab._checks import unknown_name

HEARTBEAT_SECONDS = 30
"""A process that has not been heard of for so long is taken for dead, and the others end."""

VISIBLE_SECONDS = 10.0
"""Time that a shared file system has to show a new file to the other hosts."""


class NotShared(OSError):
    """The hosts do not see one directory for the run."""


def _slurm(variables: Mapping[str, str]) -> bool:
    # without SLURM_STEP_NODELIST this is the batch script itself, or a shell of salloc, and not a task of `srun`
    return "SLURM_STEP_NODELIST" in variables and int(variables.get("SLURM_NTASKS", "1")) > 1


def _open_mpi(variables: Mapping[str, str]) -> bool:
    return "OMPI_MCA_orte_hnp_uri" in variables and int(variables.get("OMPI_COMM_WORLD_SIZE", "1")) > 1


def _gke_tpu(variables: Mapping[str, str]) -> bool:
    hosts = variables.get("TPU_PROCESS_ADDRESSES") or variables.get("TPU_WORKER_HOSTNAMES") or ""
    return "TPU_WORKER_ID" in variables and ("," in hosts or "MEGASCALE_COORDINATOR_ADDRESS" in variables)


def _kubernetes(variables: Mapping[str, str]) -> bool:
    return "KUBERNETES_SERVICE_HOST" in variables and "JOB_COMPLETION_INDEX" in variables


CLUSTERS: dict[str, tuple[str | None, Callable[[Mapping[str, str]], bool]]] = {
    "slurm": ("slurm", _slurm),
    "open_mpi": ("ompi", _open_mpi),
    "gke_tpu": ("gketpu", _gke_tpu),
    "cloud_tpu": ("gcetpu", lambda variables: False),  # told by a metadata server, which is asked on demand only
    "kubernetes": (None, _kubernetes),  # JAX has no name for it, and finds it itself; it needs jax[k8s]
}
"""By the names of `--cluster`: JAX's name, and whether the variables say that this is one of its processes."""


def find_cluster(variables: Mapping[str, str]) -> str | None:
    """The cluster whose launcher set the variables of this process for a run of several; None if there is none."""
    return next((name for name, (_, started_here) in CLUSTERS.items() if started_here(variables)), None)


def initialize(
    cluster: str = "auto", *, coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins the other processes of the run; before anything else asks for a device. Alone, it does nothing.

    `cluster` is a name of `CLUSTERS`, whose own variables say the rest; `auto`, the one that is found; or `none`. Instead of
    a cluster, `coordinator` (`host:port` of process 0), the number of `processes` and this `process`, from 0, say it.
    Errors: an unknown cluster; some of the three but not all; a process that is not among the processes.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    lacking = [name for name, value in given.items() if value is None]
    if len(lacking) < 3:
        if lacking:
            raise ValueError(f"{', '.join(lacking)} not given; accepted: coordinator, processes and process, or none.")
        if process not in range(processes or 0):
            raise ValueError(
                f"process = {process} is not accepted; accepted: 0 to processes - 1 = {(processes or 0) - 1}."
            )
        _join("deactivate", coordinator_address=coordinator, num_processes=processes, process_id=process)
        return
    if cluster not in ("auto", "none", *CLUSTERS):
        raise unknown_name("cluster", cluster, ("auto", "none", *CLUSTERS))
    found = find_cluster(os.environ) if cluster == "auto" else cluster
    if found not in (None, "none"):
        _join(CLUSTERS[str(found)][0])


def _join(method: str | None, **given: Any) -> None:
    faulthandler.enable()  # a lost peer is an abort from below Python: it comes with the stacks then
    jax.distributed.initialize(
        cluster_detection_method=method,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        **given,
    )


def is_main() -> bool:
    """Whether this process writes what there is one of: logs, pictures, records."""
    return jax.process_index() == 0


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """An error in one of several processes ends that process at once, with its traceback and code 1.

    An orderly exit would wait for the others, who wait in a collective for this one: neither would ever end. Once its
    connection is gone the others are ended by the runtime. A process alone raises as ever.
    """
    try:
        yield
    except BaseException:
        if jax.process_count() == 1:
            raise
        traceback.print_exc()
        print(f"sdelab: process {jax.process_index()} on {socket.gethostname()} failed; ending.", file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)


def barrier(name: str) -> None:
    """Waits for all processes; each must pass the same `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_main(make: Callable[[], Any]) -> Any:
    """What `make()` returns in process 0, JSON, in every process; it is called nowhere else."""
    if jax.process_count() == 1:
        return make()
    text = np.frombuffer(json.dumps(make() if is_main() else None).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(length, np.uint8)
    padded[: min(length, len(text))] = text[:length]
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def check_shared(directory: Path, name: str = "workdir") -> None:
    """All hosts see one directory, which exists in process 0. Errors: `NotShared`, with the hosts that do not."""
    if jax.process_count() == 1:
        return
    probe = directory / f".shared_{from_main(lambda: secrets.token_hex(8))}"
    if is_main():
        probe.touch()
    barrier("sdelab: the probe is written")
    end = time.monotonic() + VISIBLE_SECONDS
    while not (seen := probe.exists()) and time.monotonic() < end:
        time.sleep(0.1)
    all_seen = np.asarray(multihost_utils.process_allgather(np.int32(seen)))
    if is_main():
        probe.unlink()
    blind = [str(process) for process in np.flatnonzero(all_seen == 0)]
    if blind:
        raise NotShared(
            f"{name} = {directory} is not accepted: processes {', '.join(blind)} of {len(all_seen)} do not see what process "
            f"0 writes there (this is process {jax.process_index()} on {socket.gethostname()}). Accepted: a directory that "
            "all hosts share."
        )
