"""Which checkpoint of a run a command takes."""

from pathlib import Path

from absl import flags

from sdelab.cli.usage import UsageError
from sdelab.train import best_step


def define_checkpoint(values: flags.FlagValues) -> None:
    """The flag `--checkpoint`."""
    help = "which checkpoint: latest, best (lowest run.best_metric), or a step"
    flags.DEFINE_string("checkpoint", "latest", help, flag_values=values)


def chosen_step(workdir: Path | str, checkpoint: str) -> int | None:
    """The step that `--checkpoint` names; None for the newest sound one. Errors: `UsageError`."""
    if checkpoint == "latest":
        return None
    if checkpoint == "best":
        return best_step(workdir)
    if not checkpoint.isdecimal():
        raise UsageError(f"--checkpoint={checkpoint} is not accepted; accepted: latest, best, or a step.")
    return int(checkpoint)
