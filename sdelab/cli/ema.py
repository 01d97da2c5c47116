"""`sdelab ema`."""

from pathlib import Path

from absl import flags

from sdelab.cli.usage import new_flags, parse, print_table
from sdelab.train import load_run, reconstruct, save_average

SUMMARY = (
    "Makes the average of any width of a run's weights, from the power-function averages that it kept at intervals."
)
FAR = 0.05
"""A profile farther than this from the power function is said to be."""


def run(argv: list[str]) -> int:
    """Makes the average and keeps it in workdir, for `sdelab sample --average=NAME`."""
    values = new_flags()
    flags.DEFINE_float("sigma_rel", None, "relative width of the average, in (0, 0.288]", flag_values=values)
    flags.DEFINE_integer(
        "step", None, "updates after which it ends (default: those of the last snapshot)", flag_values=values
    )
    flags.DEFINE_string("name", None, "its name (default: sigma_rel_WIDTH)", flag_values=values)
    words = [word.replace("--sigma-rel", "--sigma_rel", 1) for word in argv]
    given = parse(values, words, SUMMARY, required=("workdir", "sigma_rel"))
    if given is None:
        return 0
    workdir = Path(given.workdir)
    made = reconstruct(workdir, load_run(workdir).score.params, given.sigma_rel, given.step)
    name = given.name or f"sigma_rel_{given.sigma_rel:g}"
    directory = save_average(workdir, name, made)
    far = "" if made.residual < FAR else ": far; more snapshots, or other widths, would bring it closer"
    print_table(
        [
            ("average", f"{name}: width {made.sigma_rel:g} after {made.step} steps, of {made.stored} kept averages"),
            ("profile", f"{made.residual:.2e} from the power function{far}"),
            ("written", str(directory)),
        ]
    )
    return 0
