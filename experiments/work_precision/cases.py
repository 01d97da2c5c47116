"""The processes, the solvers and the grid rules that are compared, and what a solver can do within some evaluations."""

from collections.abc import Callable, Mapping

import diffrax

import sdelab
from sdelab import grids
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.adams_bashforth import DEIS, ExponentialAdamsBashforth
from sdelab.solvers.base import AbstractReverseSolver
from sdelab.solvers.catalog import DETERMINISTIC, STOCHASTIC
from sdelab.solvers.ddim import DDIM
from sdelab.solvers.diffrax_terms import cost
from sdelab.solvers.dpm_solver import DPMSolver2, DPMSolver3
from sdelab.solvers.dpm_solver_multistep import DPMSolver2M, DPMSolver3M, DPMSolverPlusPlus2M, DPMSolverPlusPlus3M
from sdelab.solvers.dpm_solver_plus_plus import DPMSolverPlusPlus2S
from sdelab.solvers.heun import Heun
from sdelab.solvers.history import LowOrderStart
from sdelab.solvers.prediction import NoisePrediction
from sdelab.solvers.runge_kutta import FLOW
from sdelab.solvers.unipc import UniPC
from sdelab.solvers.variable import NoiseToSignal

Solvers = Mapping[str, diffrax.AbstractSolver]
SOLVERS: Mapping[str, Solvers] = {"deterministic": DETERMINISTIC, "stochastic": STOCHASTIC}
"""Those of `sdelab.solvers.table()`."""

CONTENDERS: Mapping[str, AbstractReverseSolver] = {
    "DDIM()": DDIM(),
    "Heun()": Heun(),
    "DPMSolver2()": DPMSolver2(),
    "DPMSolver3()": DPMSolver3(),
    "DPMSolverPlusPlus2S()": DPMSolverPlusPlus2S(),
    "DPMSolverPlusPlus2M()": DPMSolverPlusPlus2M(),
    "DPMSolverPlusPlus3M()": DPMSolverPlusPlus3M(),
    "DPMSolver2M()": DPMSolver2M(),
    "DPMSolver3M()": DPMSolver3M(),
    "UniPC(2)": UniPC(2),
    "UniPC(3)": UniPC(3),
    "ExponentialAdamsBashforth(4)": ExponentialAdamsBashforth(4),
    "DEIS(2, NoiseToSignal())": DEIS(2, NoiseToSignal()),
    "DEIS(3, NoiseToSignal())": DEIS(3, NoiseToSignal()),
    "DEIS(4, NoiseToSignal())": DEIS(4, NoiseToSignal()),
    "DEIS(4, NoiseToSignal(), start=LowOrderStart())": DEIS(4, NoiseToSignal(), start=LowOrderStart()),
    "DPMSolverPlusPlus3M(start=LowOrderStart())": DPMSolverPlusPlus3M(start=LowOrderStart()),
    "DPMSolver3M(start=LowOrderStart())": DPMSolver3M(start=LowOrderStart()),
    "UniPC(3, prediction=NoisePrediction(), start=LowOrderStart())": UniPC(
        3, prediction=NoisePrediction(), start=LowOrderStart()
    ),
}
"""Those that stand against the recorded runs of other libraries: solvers of the flow that may go down to sigma = 0."""

PROCESSES: Mapping[str, Callable[[], AbstractAffineSDE]] = {
    "VP": sdelab.VP,
    "VE": sdelab.VE,
    "SubVP": sdelab.SubVP,
    "EDM": sdelab.EDM,
    "RectifiedFlow": sdelab.RectifiedFlow,
    "VPCosine": sdelab.VPCosine,
    "VEExact": sdelab.VEExact,
}
USUAL = ("VP", "VE", "SubVP", "EDM", "RectifiedFlow")

# All end at t_min, where the exact flow and exact samples are held against them.
RULES: Mapping[str, Callable[[AbstractAffineSDE, int], grids.Grid]] = {
    "log_snr": lambda sde, n: grids.log_snr(sde, n),
    "uniform": lambda sde, n: grids.uniform(sde, n),
    "quadratic": lambda sde, n: grids.quadratic(sde, n),
    "edm": lambda sde, n: grids.edm(sde, n + 1)[:-1],
}


def evaluations_of(solver: diffrax.AbstractSolver, steps: int, to_data: bool = False) -> int | None:
    """Evaluations of the score in so many steps; None for implicit solvers, whose root finds take as many as they take."""
    if isinstance(solver, AbstractReverseSolver):
        return solver.evaluations(steps, to_data)
    price = cost(solver)
    if price is None:
        return None
    return price.per_step * steps + (
        0 if type(solver) in FLOW else price.once
    )  # all of them on grids of affine processes


def steps_within(solver: diffrax.AbstractSolver, budget: int, to_data: bool = False) -> int:
    """The most steps that cost at most `budget` evaluations; 0 where one step costs more, or the cost is not known."""
    for steps in range(budget, 0, -1):
        needed = evaluations_of(solver, steps, to_data)
        if needed is not None and needed <= budget:
            return steps
    return 0
