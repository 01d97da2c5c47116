"""What the solvers share that wrap one step of a deterministic solver, and draw the noise themselves."""

from typing import Any

from sdelab._checks import check_instance
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow
from sdelab.solvers.base import AbstractReverseSolver


def flow_of(process: AbstractReverseProcess) -> ProbabilityFlow:
    """The probability flow with the process's score: what the wrapped solver steps along."""
    return ProbabilityFlow(process.sde, process.score, process.condition)


def check_wrapped(solver: Any) -> None:
    """Errors: what is not a deterministic solver of sdelab."""
    check_instance(AbstractReverseSolver, solver=solver)
    if solver.kind != "deterministic":
        raise TypeError(
            f"solver = {solver!r} is stochastic; accepted: a deterministic solver of sdelab that takes single steps."
        )


def check_without_memory(name: str, solver: AbstractReverseSolver, memory: Any) -> None:
    """Errors: a multistep solver, whose memory would be of another trajectory than the one that the noise has begun."""
    if memory is not None:
        raise TypeError(
            f"{name} adds noise between the steps, and {type(solver).__name__} remembers earlier ones; accepted: a solver that "
            "takes single steps, as Heun."
        )
