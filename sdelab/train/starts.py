"""When, by what and on what a run was started, each time: what may differ from one start to the next."""

import collections
import datetime
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from sdelab.train.record import versions
from sdelab.train.workdir import RECORD

PATIENCE = 10.0
"""Seconds that git has to say what is checked out; on a slow file system it is left out."""


def describe_start(step: int) -> dict[str, Any]:
    """This start of a run, after `step` updates: when, the command line, the code, packages and devices.

    `git` has the revision, and whether tracked files were changed, of sdelab and of the working directory; None where that is
    no checkout. `devices` counts those of all processes by kind.
    """
    kinds = collections.Counter(device.device_kind for device in jax.devices())
    return {
        "step": step,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "command": sys.orig_argv,
        "git": {"sdelab": _of_package(Path(__file__).parents[1]), "working_directory": git_state(Path.cwd())},
        "versions": versions(),
        "platform": jax.default_backend(),
        "devices": dict(kinds),
        "processes": jax.process_count(),
    }


def read_starts(workdir: Path) -> list[dict[str, Any]]:
    """The starts so far; none where there is no record."""
    path = workdir / RECORD
    return json.loads(path.read_text()).get("starts", []) if path.exists() else []


def git_state(directory: Path) -> dict[str, Any] | None:
    """`{"revision", "dirty"}` of the checkout that holds the directory; None if none does, or git does not say."""
    revision = _git(directory, "rev-parse", "HEAD")
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return None if revision is None or changes is None else {"revision": revision, "dirty": changes != ""}


def _of_package(directory: Path) -> dict[str, Any] | None:
    """None for an installed copy, even if its environment lies within a checkout of something else."""
    return git_state(directory) if _git(directory, "ls-files", "--error-unmatch", "__init__.py") else None


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
