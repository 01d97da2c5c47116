"""One run, killed again and again, beside one that is not.

`python -m tests.train.kills CONFIG WORKDIR SEED COUNT` trains CONFIG in WORKDIR/whole, then in WORKDIR/killed, where COUNT times it
is killed at a random moment and started again, and writes what each kill met to WORKDIR/kills.json. Everything is imported once,
and each start is a fork of that, made before any process has a device: it is there in a second.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from sdelab.cli.train import train

LONGEST = 0.15
"""Seconds from the first save of a start to its kill, at most: saves follow one another, so that is mostly during one."""


def start(config, workdir):
    """A process that trains; its number."""
    child = os.fork()
    if child:
        return child
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os._exit(train(config, workdir))


def log_of(workdir):
    return (workdir.parent / f"{workdir.name}.log").read_text()


def run(config, workdir):
    """Trains to the end. Errors: a run that fails."""
    _, status = os.waitpid(start(config, workdir), 0)
    assert status == 0, log_of(workdir)


def saved(workdir):
    """What is in the folder of checkpoints, finished or not."""
    return {path.name for path in (workdir / "checkpoints").glob("[0-9]*")}


def kill_once(config, workdir, moments):
    """Starts, kills at some moment, and says what the kill met."""
    before, child = saved(workdir), start(config, workdir)
    if moments.random() < 0.2:
        time.sleep(moments.uniform(0.0, 1.0))  # before it trains
    else:
        while saved(workdir) <= before:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), log_of(workdir)
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, LONGEST))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    left = saved(workdir)
    return {
        "killed": os.WIFSIGNALED(status),
        "newest": max(map(int, filter(str.isdigit, left)), default=0),
        "during_a_save": not all((workdir / "checkpoints" / name / "manifest.json").exists() for name in left),
    }


def main(config, workdir, seed, count):
    config, workdir, moments = json.loads(config), Path(workdir), random.Random(int(seed))
    run(config, workdir / "whole")
    kills = [kill_once(config, workdir / "killed", moments) for _ in range(int(count))]
    run(config, workdir / "killed")
    (workdir / "kills.json").write_text(json.dumps(kills))


if __name__ == "__main__":
    main(*sys.argv[1:])
