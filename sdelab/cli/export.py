"""`sdelab export`."""

from pathlib import Path

from absl import flags

from sdelab.cli.checkpoint import chosen_step, define_checkpoint
from sdelab.cli.usage import UsageError, new_flags, parse, print_table
from sdelab.interop.safetensors_file import write_safetensors
from sdelab.train import WEIGHTS, load_run
from sdelab.train.workdir import make_writable

SUMMARY = "Writes the weights of the run in workdir, and its configuration, to a safetensors file."


def run(argv: list[str]) -> int:
    """Exports, and prints what was written."""
    values = new_flags()
    flags.DEFINE_string("out", None, "path of the .safetensors file", flag_values=values)
    help = f"which weights: {', '.join(WEIGHTS)}, one of the config's averages, or one that `sdelab ema` made"
    flags.DEFINE_string("weights", "averaged", help, flag_values=values)
    define_checkpoint(values)
    given = parse(values, argv, SUMMARY, required=("workdir", "out"))
    if given is None:
        return 0
    path = Path(given.out)
    if path.suffix != ".safetensors":
        raise UsageError(f"--out={path} is not accepted; accepted: a path that ends in .safetensors.")
    trained = load_run(given.workdir, given.weights, step=chosen_step(given.workdir, given.checkpoint))
    make_writable(path.parent, "directory of out")
    write_safetensors(path, trained)
    print_table([("weights", f"{given.weights}, from step {trained.step}"), ("written", str(path))])
    return 0
