"""Flags of commands that split their work over all devices of all processes."""

import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from sdelab._checks import check_count, check_positive
from sdelab.cli.processes import define_processes, join_processes, say
from sdelab.cli.usage import UsageError
from sdelab.evaluate import PATIENCE
from sdelab.train import PREEMPTED, AbstractPlacement, Preempted
from sdelab.train.distributed import ending_together
from sdelab.train.run import PLACEMENTS

SPLITS = ("data", "fsdp", "jit")
"""The placements of work without gradients: `pmap` is there to average them."""


def define_devices(values: flags.FlagValues) -> None:
    """The flags that say where the work is done, and how much at a time."""
    define_processes(values)
    help = "data (a batch over all devices), fsdp (the weights too) or jit (one device)"
    flags.DEFINE_string("placement", "data", help, flag_values=values)
    flags.DEFINE_integer("batch", 256, "number at a time, over all devices", flag_values=values)
    help = "seconds that one of several processes may take for a batch before it is taken for hung"
    flags.DEFINE_float("patience", PATIENCE, help, flag_values=values)


def build_devices(given: Any) -> AbstractPlacement:
    """The placement of the flags. Errors: an unknown one; one device in a run of several processes."""
    return PLACEMENTS[given.placement]()


def on_devices(given: Any, work: Callable[[], None]) -> int:
    """Joins the other processes and does the work: 0 when done, 42 when asked to stop, with what was done kept.

    Errors: flags of `define_devices` with values that are not accepted.
    """
    check_count(batch=given.batch)
    check_positive(patience=given.patience)
    if given.placement not in SPLITS:
        reason = " (it averages gradients; data splits a batch alike)" if given.placement in PLACEMENTS else ""
        raise UsageError(f"--placement={given.placement} is not accepted{reason}; accepted: {', '.join(SPLITS)}.")
    join_processes(given)
    with ending_together():
        try:
            work()
        except Preempted as error:
            say(f"sdelab: {error}", file=sys.stderr)
            return PREEMPTED
    return 0
