"""Measures the order of every solver of the catalogue, stores the figures, prints the table that `solvers.table()` gives.

    python -m experiments.orders [--only NAME ...] [--output sdelab/solvers/measured_orders.json] [--dry-run]

Deterministic solvers by the root mean square error along the probability flow of a Gaussian, whose trajectories are known in
closed form, and of a mixture; stochastic ones by mean and variance of a Gaussian, propagated exactly. In float64, on grids
uniform in log-SNR that end at sigma > 0, by `sdelab.testing.order`. With `--only` the figures of other solvers stay as they
are stored. Ten minutes on one core.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.orders.measure import DATA, PROCESSES, measure
from sdelab.solvers.catalog import DETERMINISTIC, STOCHASTIC
from sdelab.solvers.table import measured_orders, table

OUTPUT = Path(__file__).parents[2] / "sdelab" / "solvers" / "measured_orders.json"


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    stored = measured_orders() if options.only and OUTPUT.exists() else {}
    orders = {kind: dict(stored.get(kind, {})) for kind in ("deterministic", "stochastic")}
    for kind, name, solver in chosen(options.only):
        started = time.perf_counter()
        orders[kind][name] = {where: round(order, 3) for where, order in measure(solver, kind)}
        lowest = min(orders[kind][name].values(), default=math.nan)
        print(f"{name:<62} {lowest:7.3f}  ({time.perf_counter() - started:.0f} s)", flush=True)
        if not options.dry_run:
            options.output.write_text(json.dumps(report(in_order(orders)), indent=1) + "\n")
    if not options.dry_run:
        measured_orders.cache_clear()
        print(table())
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m experiments.orders", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the solvers, by their names in the table")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the JSON file")
    parser.add_argument("--dry-run", action="store_true", help="print the figures and store nothing")
    return parser.parse_args(arguments)


def chosen(only: list[str] | None) -> Iterator[tuple[str, str, Any]]:
    for kind, solvers in (("deterministic", DETERMINISTIC), ("stochastic", STOCHASTIC)):
        for name, solver in solvers.items():
            if only is None or name in only:
                yield kind, name, solver


def in_order(orders: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """As the catalogue has them, and nothing that it has no more."""
    catalogue = {"deterministic": DETERMINISTIC, "stochastic": STOCHASTIC}
    return {kind: {name: orders[kind][name] for name in catalogue[kind] if name in orders[kind]} for kind in orders}


def report(orders: dict[str, Any]) -> dict[str, Any]:
    settings = {"jax": jax.__version__, "processes": list(PROCESSES), "data": list(DATA)}
    return {"settings": settings, "orders": orders}


if __name__ == "__main__":
    raise SystemExit(main())
