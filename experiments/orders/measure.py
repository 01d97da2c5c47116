"""The order of one solver on each process: lists of `(process and data, order)`."""

from collections.abc import Iterator
from functools import cache

import diffrax

import sdelab
from sdelab.solvers.table import claimed_order
from sdelab.testing.one_of import OneOf
from sdelab.testing.order import (
    WEAK_STEPS,
    FlowProblem,
    flow_problem,
    steps_for,
    two_components,
    weak_convergence,
)

PROCESSES = {
    "VP": sdelab.VP(),
    "VE": sdelab.VE(),
    "SubVP": sdelab.SubVP(),
    "EDM": sdelab.EDM(),
    "RectifiedFlow": sdelab.RectifiedFlow(),
}
DATA = {"Gaussian": None, "mixture": two_components}


def measure(solver: diffrax.AbstractSolver, kind: str) -> Iterator[tuple[str, float]]:
    if kind == "deterministic":
        for data in DATA:
            for process in PROCESSES:
                yield f"{process}, {data}", flow_order(solver, process, data)
    elif claimed_order(solver, "stochastic") is not None:  # a Langevin step has a bias that does not fall
        for process in PROCESSES:
            yield f"{process}, Gaussian", weak_order(solver, process)


def flow_order(solver: diffrax.AbstractSolver, process: str, data: str) -> float:
    steps = steps_for(claimed_order(solver, "deterministic"))
    return problem(process, data).convergence(solver, steps).order


def weak_order(solver: diffrax.AbstractSolver, process: str) -> float:
    steps = steps_for(claimed_order(solver, "stochastic"), WEAK_STEPS)
    return weak_convergence(solver, PROCESSES[process], steps, carrier=carrier(process)).order


@cache
def problem(process: str, data: str) -> FlowProblem:
    build = DATA[data]
    return flow_problem(PROCESSES[process], None if build is None else build(), carrier=carrier(process))


def carrier(process: str) -> OneOf:
    """One compiled step of a solver serves all processes."""
    return OneOf(tuple(PROCESSES.values()), list(PROCESSES).index(process))
