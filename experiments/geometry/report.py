"""The measurements as a table, as JSON and as pictures."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.geometry.measure import Row, Run

INK = "#22223b"
TICKS = [5, 10, 20, 40, 80]


def table(rows: Sequence[Row]) -> str:
    head = f"{'problem':<22}{'solver':<26}{'evaluations':>12}{'error':>11}{'warm start at':>15}{'evaluations':>13}{'saved':>8}"
    lines = [head]
    for row in rows:
        warm = f"{row.t:>15.3g}{row.warm_evaluations:>13.1f}{100 * row.saved:>7.0f}%"
        if math.isnan(row.warm_evaluations):
            warm = f"{'none as good':>15}{'—':>13}{'—':>8}"
        lines.append(f"{row.problem:<22}{row.solver:<26}{row.evaluations:>12.0f}{row.error:>11.2e}{warm}")
    return "\n".join(lines)


def record(runs: Sequence[Run], rows: Sequence[Row]) -> dict[str, Any]:
    """What goes into the JSON file; None for what is not a number."""
    curves = [
        {
            "problem": run.problem,
            "solver": run.solver,
            "level": run.level,
            "t": run.t,
            "cold": {"evaluations": run.saving.cold.evaluations, "errors": run.saving.cold.errors},
            "warm": {"evaluations": run.saving.warm.evaluations, "errors": run.saving.warm.errors},
        }
        for run in runs
    ]
    numbers = [{**row._asdict(), "saved": row.saved} for row in rows]
    plain = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in numbers]
    return {"equal_error": plain, "curves": curves}


def picture(runs: Sequence[Run]) -> Figure:
    """Error against evaluations: a row for each problem, a column for each solver, a line for each warm start."""
    problems, solvers = (list(dict.fromkeys(getattr(run, name) for run in runs)) for name in ("problem", "solver"))
    size = 3.0 * len(solvers) + 1.8, 2.8 * len(problems) + 0.3
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    axes = figure.subplots(len(problems), len(solvers), squeeze=False, sharex=True, sharey="row")
    for i, problem in enumerate(problems):
        for j, solver in enumerate(solvers):
            panel(axes[i, j], [run for run in runs if (run.problem, run.solver) == (problem, solver)])
            axes[i, j].set_title(f"{solver}\n{problem}", fontsize=9, color=INK)
        axes[i, 0].set_ylabel("RMS error")
        handles, labels = axes[i, -1].get_legend_handles_labels()
        axes[i, -1].legend(handles, labels, frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axis in axes[-1]:
        axis.set_xlabel("evaluations")
    return figure


def panel(axes: Axes, runs: Sequence[Run]) -> None:
    for number, run in enumerate(runs):
        warm = run.saving.warm
        axes.loglog(warm.evaluations, warm.errors, ".-", color=f"C{number}", lw=1, label=f"from t = {run.t:.3g}")
    cold = runs[0].saving.cold
    axes.loglog(cold.evaluations, cold.errors, ".--", color=INK, lw=1.2, label="from t_max")
    axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.grid(color="#e9ecef", linewidth=0.6)
