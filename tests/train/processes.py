"""Starts the runs of `tests.train.placements`, or of another module, alone or several that find each other; none outlives its time."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(devices, *arguments, module="tests.train.placements"):
    """One process with so many devices of its own. Its programs are small: compiling them well would take longest."""
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".lstrip(),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@contextlib.contextmanager
def gang(count, devices, *arguments, **module):
    """`count` processes with `devices` each that train one run; whatever is left of them at the end is killed.

    `%p` in an argument stands for the number of the process.
    """
    address = f"localhost:{free_port()}"
    together = [("--", address, count, process) if count > 1 else () for process in range(count)]
    processes = [
        start(devices, *(str(argument).replace("%p", str(process)) for argument in arguments), *place, **module)
        for process, place in enumerate(together)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def outcome(processes, limit=300.0):
    """The exit codes and outputs of all. Errors: one that runs longer than `limit` seconds."""
    end = time.monotonic() + limit
    outputs = [process.communicate(timeout=max(1.0, end - time.monotonic()))[0] for process in processes]
    return [process.returncode for process in processes], outputs


def run(count, devices, *arguments, **module):
    """Runs a gang to its end. Errors: one that fails, with what it wrote."""
    with gang(count, devices, *arguments, **module) as processes:
        codes, outputs = outcome(processes)
    assert codes == [0] * count, "\n".join(outputs)
