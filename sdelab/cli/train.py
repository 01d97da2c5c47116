"""`sdelab train`."""

import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from sdelab.cli.config_file import apply_overrides, load_config, split_overrides
from sdelab.cli.processes import define_processes, join_processes, say
from sdelab.cli.usage import UsageError, new_flags, parse
from sdelab.train import PREEMPTED, MissingExtra, NonFiniteMetric, Preempted, fit
from sdelab.train.checkpoint import newest_sound_step
from sdelab.train.distributed import ending_together

SUMMARY = "Trains what a config file describes, or goes on where the run in workdir was left."


def run(argv: list[str]) -> int:
    """Trains; 0 when done, 1 on a metric that is not finite, 42 when asked to stop and saved."""
    values = new_flags()
    help = "path of a config file; --config.sde.beta_max=12 overrides, and --config.sde.name=VE starts the section anew"
    flags.DEFINE_string("config", None, help, flag_values=values)
    rest, overrides = split_overrides(argv)
    define_flags(values)
    given = parse(values, rest, SUMMARY, required=("config", "workdir"))
    if given is None:
        return 0
    return start(given, apply_overrides(load_config(given.config), overrides), Path(given.workdir))


def define_flags(values: flags.FlagValues) -> None:
    """The flags of a training, whatever its config comes from."""
    define_processes(values)
    help = "FIRST:LAST, steps of which a trace is written to WORKDIR/profile"
    flags.DEFINE_string("profile", None, help, flag_values=values)
    help = "directory that keeps compiled programs for later runs (default: $JAX_COMPILATION_CACHE_DIR)"
    flags.DEFINE_string("compilation_cache", None, help, flag_values=values)


def start(given: Any, config: dict[str, Any], workdir: Path) -> int:
    """Trains as the flags say, alone or as one of several processes; the exit code of `run`."""
    logging.set_verbosity(logging.ERROR)  # Orbax reports every save
    profile = _steps(given.profile)
    if given.compilation_cache is not None:
        jax.config.update("jax_compilation_cache_dir", given.compilation_cache)
    join_processes(given)
    with ending_together():
        return train(config, workdir, profile=profile)


def _steps(words: str | None) -> tuple[int, int] | None:
    if words is None:
        return None
    first, colon, last = words.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise UsageError(f"--profile={words} is not accepted; accepted: FIRST:LAST with 1 <= FIRST <= LAST.")
    return int(first), int(last)


def train(config: dict[str, Any], workdir: Path, *, profile: tuple[int, int] | None = None) -> int:
    """Trains and returns the exit code: see `run`."""
    try:
        state = fit(config, workdir, profile=profile)
    except Preempted as error:
        say(f"sdelab: {error}", file=sys.stderr)
        return PREEMPTED
    except MissingExtra as error:
        raise UsageError(str(error)) from error
    except NonFiniteMetric as error:
        say(f"sdelab: {error} {_what_is_left(workdir)}", file=sys.stderr)
        return 1
    step, asked = int(state["step"]), config["run"]["steps"]
    if step > asked:
        say(f"the run in {workdir} is at step {step} already; nothing to do for {asked} steps")
    else:
        say(f"trained {step} steps; the run is in {workdir}")
    return 0


def _what_is_left(workdir: Path) -> str:
    try:
        newest = newest_sound_step(workdir / "checkpoints")
    except FileNotFoundError:
        return f"There is no checkpoint in {workdir}: none was due before."
    return f"The checkpoint of step {newest.name} in {workdir} is as it was."
