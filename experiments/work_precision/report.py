"""The records as a table of the best, as JSON and as pictures."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from experiments.work_precision.measure import METRIC, Record, distances
from experiments.work_precision.problems import Problem

Best = dict[str, str | float | int]


def best_at(records: Sequence[Record], budgets: Sequence[int]) -> list[Best]:
    """For each problem, process and kind: the record of smallest error with at most so many evaluations."""
    found: list[Best] = []
    for where in dict.fromkeys((r.problem, r.process, r.kind) for r in records):
        metric = METRIC[where[2]]
        for budget in budgets:
            affordable = [r for r in records if (r.problem, r.process, r.kind) == where and r.evaluations <= budget]
            if affordable:
                best = min(affordable, key=lambda r: r.errors[metric])
                row = {"problem": where[0], "process": where[1], "kind": where[2], "budget": budget, "metric": metric}
                chosen = {"solver": best.solver, "rule": best.rule, "evaluations": best.evaluations}
                found.append({**row, **chosen, "error": best.errors[metric], "seconds": best.seconds})
    return found


def table(best: Sequence[Best], budgets: Sequence[int], floors: dict[str, float]) -> str:
    """Markdown: a row for each problem, process and kind, a column for each number of evaluations.

    `floors`: by problem and process, the sliced Wasserstein distance of two sets of exact samples.
    """
    names = ["problem", "process", "error", *(f"{budget} evaluations" for budget in budgets)]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for where, rows in itertools.groupby(best, key=lambda row: (row["problem"], row["process"], row["metric"])):
        at = {row["budget"]: f"{row['solver']} on {row['rule']}: {row['error']:.1e}" for row in rows}
        metric = str(where[2])
        if metric != "rmse":
            metric += f" (exact samples: {floors[f'{where[0]}, {where[1]}']:.1e})"
        cells = [str(where[0]), str(where[1]), metric, *(at.get(budget, "—") for budget in budgets)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pictures(problem: str, records: Sequence[Record], floors: dict[str, float]) -> Figure:
    """Error against evaluations and against seconds, one row a process; each solver on its best grid."""
    processes = list(dict.fromkeys(r.process for r in records))
    kinds = list(dict.fromkeys(r.kind for r in records))
    columns = [(kind, cost) for kind in kinds for cost in ("evaluations", "seconds")]
    names = sum(len({r.solver for r in records if r.kind == kind}) for kind in kinds)
    size = 4.2 * len(columns) + 3.0, max(3.4 * len(processes), 0.17 * names) + 0.6  # room for the names beside
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(len(processes), len(columns), squeeze=False)
    for (row, process), (column, (kind, cost)) in itertools.product(enumerate(processes), enumerate(columns)):
        chosen = [r for r in records if (r.process, r.kind) == (process, kind)]
        panel = axes[row, column]
        curves(panel, chosen, cost, METRIC[kind])
        if kind == "stochastic":
            panel.axhline(floors[f"{problem}, {process}"], color="#adb5bd", linewidth=0.8, linestyle=":")
        panel.set(title=f"{process}, {kind}", xlabel=cost, ylabel=METRIC[kind].replace("_", " "))
    for column in range(0, len(columns), 2):
        handles, labels = axes[0, column].get_legend_handles_labels()
        place = "outside right upper" if column == 0 else "outside right lower"
        figure.legend(handles, labels, loc=place, fontsize=7, title=kinds[column // 2])
    figure.suptitle(problem)
    return figure


def curves(axes: Axes, records: Sequence[Record], cost: str, metric: str) -> None:
    """One line a solver, on logarithmic axes; at each length the grid rule of smallest error."""
    for number, name in enumerate(dict.fromkeys(r.solver for r in records)):
        lengths = dict.fromkeys(r.steps for r in records if r.solver == name)
        best = [
            min((r for r in records if (r.solver, r.steps) == (name, n)), key=lambda r: r.errors[metric])
            for n in lengths
        ]
        best = [r for r in best if np.isfinite(r.errors[metric])]
        style = ("-", "--", "-.", ":")[number // 10 % 4]
        x, y = [getattr(r, cost) for r in best], [r.errors[metric] for r in best]
        axes.plot(x, y, style, color=f"C{number % 10}", marker=".", linewidth=1.0, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#e9ecef", linewidth=0.6)


def floors_of(problems: Sequence[Problem]) -> dict[str, float]:
    """How far two sets of exact samples are apart, by problem and process."""
    return {f"{p.name}, {p.process_name}": distances(p.others, p.samples)["sliced_wasserstein"] for p in problems}
