"""The command `sdelab`: finds the subcommand, and turns errors into exit codes."""

import importlib
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdelab._checks import unknown_name
from sdelab._extras import MissingExtra
from sdelab.cli.usage import UsageError
from sdelab.cli.xla_flags import choose_fusions

COMMANDS = {
    "train": "train what a config file describes, or go on where a run was left",
    "sweep": "expand a grid of overrides into runs, and train one of them",
    "ema": "an average of the weights that was not kept, made of those that were",
    "sample": "draw samples from a run: an .npz file and a picture",
    "evaluate": "bits/dim of held-out data, and distances of samples to it",
    "report": "a run, finished or not, as one page of HTML",
    "preflight": "what a training step needs of devices that need not be there: memory, time, collectives",
    "doctor": "whether the process, the data and the arithmetic of a config belong together",
    "data": "`data inspect`: what a data set holds, in numbers and as a picture",
    "diff": "what differs between two runs; exit code 1 if anything does",
    "import": "make a run of a published checkpoint: score_sde, score_sde_pytorch, EDM",
    "export": "write the weights of a run to a safetensors file",
}
MODULES = {"import": "import_checkpoint"}
"""Where a command is whose name is a word of the language."""
USAGE = "\n".join(
    [
        "usage: sdelab COMMAND [flags]",
        "",
        *(f"  {name:9} {words}" for name, words in COMMANDS.items()),
        "",
        "`sdelab COMMAND --help` lists the flags of a command.",
    ]
)
FAILURE, USER_ERROR = 1, 2
_PACKAGE = Path(__file__).resolve().parents[1]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of `argv` (default `sys.argv`) and exits: 0 done, 1 failed, 2 bad input, 42 preempted."""
    choose_fusions()
    sys.exit(run(list(sys.argv if argv is None else argv)))


def run(argv: list[str]) -> int:
    """As `main`, but returns the exit code."""
    if len(argv) < 2 or argv[1] in ("help", "-h", "--help", "-help"):
        print(USAGE, file=sys.stdout if len(argv) > 1 else sys.stderr)
        return 0 if len(argv) > 1 else USER_ERROR
    return exit_code_of(lambda: _dispatch(argv))


def exit_code_of(command: Callable[[], int]) -> int:
    """The command's exit code; one line for an error that sdelab raised on purpose. A bug keeps its traceback.

    2 for an error about the input, 1 for one that came up on the way (a solve that did not arrive, a loss that is NaN).
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            return command()
    except Exception as error:
        if not _is_ours(error):
            raise
        print(f"sdelab: {error}", file=sys.stderr)
        return USER_ERROR if isinstance(error, (ValueError, TypeError, OSError, MissingExtra)) else FAILURE


def _dispatch(argv: list[str]) -> int:
    if argv[1] not in COMMANDS:
        raise UsageError(str(unknown_name("command", argv[1], COMMANDS)))
    return importlib.import_module(f"sdelab.cli.{MODULES.get(argv[1], argv[1])}").run([f"sdelab {argv[1]}", *argv[2:]])


def _is_ours(error: Exception) -> bool:
    """Whether the error was raised here, on purpose: what comes from below is a bug and keeps its trace."""
    if not isinstance(error, (ValueError, TypeError, OSError, RuntimeError, FloatingPointError, MissingExtra)):
        return False
    origin = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(origin.filename).resolve().is_relative_to(_PACKAGE)
    return ours and (origin.line or "").startswith("raise ")


def _print_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
    """Ours in one line, others as ever."""
    if category.__module__.startswith("sdelab."):
        print(f"sdelab: warning: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))
