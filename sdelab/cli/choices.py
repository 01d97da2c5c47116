"""Solvers and processes by the names of the command line."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import diffrax
import numpy as np

from sdelab import grids, solvers
from sdelab._checks import check_count, unknown_name
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow, ReverseSDE
from sdelab.score import AbstractScore
from sdelab.sde import AbstractAffineSDE


@dataclasses.dataclass(frozen=True)
class Options:
    """What the flags of a sampling command say; None where a flag was not given."""

    solver: str = "euler_maruyama"
    steps: int | None = None
    grid: str = "uniform"
    rtol: float | None = None
    atol: float | None = None
    finish: str = "none"
    snr: float | None = None
    corrector_steps: int | None = None
    stochasticity: float | None = None
    predictor: str | None = None
    corrector: str | None = None
    sequence: str | None = None
    s_churn: float | None = None
    s_min: float | None = None
    s_max: float | None = None
    s_noise: float | None = None


def _predictor_corrector(options: Options) -> diffrax.AbstractSolver:
    corrector = CORRECTORS[options.corrector or "langevin"](
        snr=0.16 if options.snr is None else options.snr,
        steps=1 if options.corrector_steps is None else options.corrector_steps,
    )
    predictor = PREDICTORS[options.predictor or "reverse_diffusion"]()
    sequence = SEQUENCES[options.sequence or "corrector_first"]()
    return solvers.PredictorCorrector(predictor=predictor, corrector=corrector, sequence=sequence)


def _churn(options: Options) -> diffrax.AbstractSolver:
    given: dict[str, Any] = {name: getattr(options, name) for name in CHURN_OPTIONS}
    settings: dict[str, Any] = {"s_churn": 40.0} | {name: value for name, value in given.items() if value is not None}
    return solvers.Churn(solver=solvers.Heun(), **settings)


CORRECTOR_OPTIONS = ("snr", "corrector_steps", "predictor", "corrector", "sequence")
CHURN_OPTIONS = {
    "s_churn": "how much noise is added on the way (default: 40)",
    "s_min": "lowest noise-to-signal ratio at which noise is added (default: 0)",
    "s_max": "highest noise-to-signal ratio at which noise is added (default: no bound)",
    "s_noise": "factor of the noise that is added (default: 1)",
}
SOLVERS_WITH_OPTIONS = {
    "churn": (_churn, CHURN_OPTIONS),
    "predictor_corrector": (_predictor_corrector, CORRECTOR_OPTIONS),
}
"""Solvers with options of their own, and those options."""

PREDICTORS = {
    "ancestral": solvers.Ancestral,
    "ancestral_ddpm": solvers.AncestralDDPM,
    "ancestral_smld": solvers.AncestralSMLD,
    "euler_maruyama": solvers.EulerMaruyama,
    "reverse_diffusion": solvers.ReverseDiffusion,
}
CORRECTORS = {"annealed_langevin": solvers.AnnealedLangevin, "langevin": solvers.Langevin}
SEQUENCES = {"corrector_first": solvers.CorrectorFirst, "predictor_first": solvers.PredictorFirst}
STOCHASTIC: dict[str, Any] = PREDICTORS | {
    "ancestral_heun": lambda: solvers.AncestralStep(solvers.Heun()),
    "diffrax_euler_heun": diffrax.EulerHeun,
    "exponential_euler": solvers.ExponentialEuler,
    "general_shark": diffrax.GeneralShARK,
    "sde_dpm_solver_pp_1": solvers.SDEDPMSolverPlusPlus1,
    "sde_dpm_solver_pp_2m": solvers.SDEDPMSolverPlusPlus2M,
    "sea": diffrax.SEA,
    "shark": diffrax.ShARK,
    "slow_rk": diffrax.SlowRK,
    "spark": diffrax.SPaRK,
    "sra1": diffrax.SRA1,
    "stochastic_ddim": solvers.StochasticDDIM,
}
DETERMINISTIC: dict[str, Any] = {
    **{f"deis_{order}": functools.partial(solvers.DEIS, order) for order in (1, 2, 3, 4)},
    **{
        f"exponential_ab_{order}": functools.partial(solvers.ExponentialAdamsBashforth, order) for order in (1, 2, 3, 4)
    },
    **{f"unipc_{order}": functools.partial(solvers.UniPC, order) for order in (1, 2, 3)},
    "bosh3": diffrax.Bosh3,
    "ddim": solvers.DDIM,
    "diffrax_heun": diffrax.Heun,
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "dpm_solver_2": solvers.DPMSolver2,
    "dpm_solver_2m": solvers.DPMSolver2M,
    "dpm_solver_3": solvers.DPMSolver3,
    "dpm_solver_3m": solvers.DPMSolver3M,
    "dpm_solver_pp_2m": solvers.DPMSolverPlusPlus2M,
    "dpm_solver_pp_2s": solvers.DPMSolverPlusPlus2S,
    "dpm_solver_pp_3m": solvers.DPMSolverPlusPlus3M,
    "dpm_solver_pp_3s": solvers.DPMSolverPlusPlus3S,
    "euler": diffrax.Euler,
    "heun": solvers.Heun,
    "implicit_euler": diffrax.ImplicitEuler,
    "kencarp3": diffrax.KenCarp3,
    "kencarp4": diffrax.KenCarp4,
    "kencarp5": diffrax.KenCarp5,
    "kvaerno3": diffrax.Kvaerno3,
    "kvaerno4": diffrax.Kvaerno4,
    "kvaerno5": diffrax.Kvaerno5,
    "midpoint": diffrax.Midpoint,
    "ralston": diffrax.Ralston,
    "reversible_heun": diffrax.ReversibleHeun,
    "tsit5": diffrax.Tsit5,
}
SOLVERS = sorted({*SOLVERS_WITH_OPTIONS, *STOCHASTIC, *DETERMINISTIC})
GRIDS: dict[str, Callable[..., np.ndarray]] = {
    "cosine": grids.cosine,
    "edm": grids.edm,
    "log_snr": grids.log_snr,
    "quadratic": grids.quadratic,
    "uniform": grids.uniform,
}
FINISHES = {"none": solvers.NoFinish, "noiseless": solvers.NoiselessPredictor, "tweedie": solvers.Tweedie}


def choose(
    options: Options, sde: AbstractAffineSDE, score: AbstractScore
) -> tuple[AbstractReverseProcess, dict[str, Any]]:
    """The process, and the keyword arguments of `sdelab.sample`, that the options stand for.

    Stochastic solvers take the reverse SDE, deterministic ones the probability flow. With `steps` the grid is fixed;
    with tolerances the steps are adaptive; with neither the solver's own default holds.
    Errors: an unknown name, with the closest; an option that the solver does not have.
    """
    _check_options(options)
    if options.solver in DETERMINISTIC:
        process = ProbabilityFlow(sde, score)
        solver = DETERMINISTIC[options.solver]()
    else:
        process = ReverseSDE(sde, score, stochasticity=1.0 if options.stochasticity is None else options.stochasticity)
        solver = (
            SOLVERS_WITH_OPTIONS[options.solver][0](options)
            if options.solver in SOLVERS_WITH_OPTIONS
            else STOCHASTIC[options.solver]()
        )
    arguments = {"solver": solver, "finish": _lookup("finish", FINISHES, options.finish)()}
    if options.steps is not None:
        check_count(steps=options.steps)
        arguments["grid"] = _lookup("grid", GRIDS, options.grid)(sde, options.steps)
    tolerances = {"rtol": options.rtol, "atol": options.atol}
    return process, arguments | {name: value for name, value in tolerances.items() if value is not None}


def _check_options(options: Options) -> None:
    if options.solver not in SOLVERS:
        raise unknown_name("solver", options.solver, SOLVERS)
    adaptive = options.rtol is not None or options.atol is not None
    if adaptive and options.steps is not None:
        raise ValueError(
            "steps and tolerances exclude each other: a fixed grid, or a controller that chooses the steps."
        )
    if options.grid != "uniform" and options.steps is None:
        raise ValueError(f"grid = {options.grid!r} needs steps.")
    for solver, (_, own) in SOLVERS_WITH_OPTIONS.items():
        for name in own:
            if getattr(options, name) is not None and options.solver != solver:
                raise ValueError(f"{name} belongs to {solver}; {options.solver} has no such option.")
    for name, table in (("predictor", PREDICTORS), ("corrector", CORRECTORS), ("sequence", SEQUENCES)):
        if getattr(options, name) is not None:
            _lookup(name, table, getattr(options, name))
    if options.corrector_steps is not None:
        check_count(corrector_steps=options.corrector_steps)
    if options.stochasticity is not None and options.solver in DETERMINISTIC:
        raise ValueError(f"stochasticity belongs to the reverse SDE; {options.solver} solves the probability flow.")


def _lookup(kind: str, table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise unknown_name(kind, name, table)
    return table[name]
