"""The solvers of sdelab, and what each is by hand."""

import diffrax

from experiments.overhead.multistep import (
    IN_DATA,
    IN_NOISE,
    IN_RATIO,
    IN_TIME,
    Exact,
    adams_bashforth,
    dpm_solver_2m,
    dpm_solver_plus_plus_2m,
    runge_kutta_start,
    sde_dpm_solver_plus_plus_2m,
    uni_pc,
)
from experiments.overhead.rivals import DATA, NOISE, SCORE, Method, Prediction
from experiments.overhead.runge_kutta import runge_kutta, runge_kutta_with_noise, stochastic_runge_kutta
from experiments.overhead.singlestep import (
    ancestral,
    ancestral_ddpm,
    ancestral_heun,
    churned_heun,
    corrected_reverse_diffusion,
    ddim,
    dpm_solver_2,
    dpm_solver_3,
    dpm_solver_plus_plus_2s,
    dpm_solver_plus_plus_3s,
    euler,
    euler_maruyama,
    exponential_euler,
    heun,
    heun_in_time,
    midpoint_in_time,
    ralston_in_time,
    reverse_diffusion,
    sde_dpm_solver_plus_plus_1,
)
from sdelab import solvers
from sdelab.solvers.adams_bashforth import DEIS, ExponentialAdamsBashforth
from sdelab.solvers.ancestral_step import AncestralStep
from sdelab.solvers.churn import Churn
from sdelab.solvers.ddim import DDIM, StochasticDDIM
from sdelab.solvers.dpm_solver import DPMSolver2, DPMSolver3
from sdelab.solvers.dpm_solver_multistep import DPMSolver2M, DPMSolver3M, DPMSolverPlusPlus2M, DPMSolverPlusPlus3M
from sdelab.solvers.dpm_solver_plus_plus import DPMSolverPlusPlus2S, DPMSolverPlusPlus3S
from sdelab.solvers.exponential_euler import ExponentialEuler
from sdelab.solvers.prediction import NoisePrediction
from sdelab.solvers.sde_dpm_solver import SDEDPMSolverPlusPlus1, SDEDPMSolverPlusPlus2M
from sdelab.solvers.unipc import UniPC
from sdelab.solvers.variable import NoiseToSignal


def multistep(prediction: Prediction, exact: Exact, order: int, solver: diffrax.AbstractSolver) -> Method:
    numbers = adams_bashforth(exact, order)
    inserted = {1: (), 2: (0,), 3: (1, 0), 4: (2, 1, 0)}[order]
    return Method(solver, prediction, numbers, start=runge_kutta_start(exact.sign, inserted, numbers))


METHODS = {
    "EulerMaruyama": Method(solvers.EulerMaruyama(), SCORE, euler_maruyama, draws=1),
    "ReverseDiffusion": Method(solvers.ReverseDiffusion(), SCORE, reverse_diffusion, draws=1),
    "Ancestral": Method(solvers.Ancestral(), DATA, ancestral, draws=1),
    "AncestralDDPM": Method(solvers.AncestralDDPM(), SCORE, ancestral_ddpm, draws=1),
    "AncestralStep(Heun)": Method(AncestralStep(solvers.Heun()), NOISE, ancestral_heun, draws=1),
    "StochasticDDIM": Method(StochasticDDIM(), DATA, ancestral, draws=1),
    "PredictorCorrector": Method(
        solvers.PredictorCorrector(corrector=solvers.Langevin(snr=0.16)),
        SCORE,
        corrected_reverse_diffusion(0.16),
        draws=2,
    ),
    "ExponentialEuler": Method(ExponentialEuler(), SCORE, exponential_euler, draws=1),
    "SDEDPMSolverPlusPlus1": Method(SDEDPMSolverPlusPlus1(), DATA, sde_dpm_solver_plus_plus_1, draws=1),
    "SDEDPMSolverPlusPlus2M": Method(SDEDPMSolverPlusPlus2M(), DATA, sde_dpm_solver_plus_plus_2m, draws=1),
    "Churn(Heun)": Method(Churn(solvers.Heun(), s_churn=40.0), NOISE, churned_heun(40.0), draws=1),
    "diffrax.Euler, SDE": Method(diffrax.Euler(), SCORE, euler_maruyama, draws=1),
    "diffrax.EulerHeun": Method(diffrax.EulerHeun(), SCORE, euler_maruyama, draws=1),
    "diffrax.Heun, SDE": Method(diffrax.Heun(), SCORE, runge_kutta_with_noise(diffrax.Heun), draws=1),
    "diffrax.SEA": Method(diffrax.SEA(), SCORE, stochastic_runge_kutta(diffrax.SEA), draws=2),
    "diffrax.ShARK": Method(diffrax.ShARK(), SCORE, stochastic_runge_kutta(diffrax.ShARK), draws=2),
    "diffrax.SRA1": Method(diffrax.SRA1(), SCORE, stochastic_runge_kutta(diffrax.SRA1), draws=2),
    "diffrax.SPaRK": Method(diffrax.SPaRK(), SCORE, stochastic_runge_kutta(diffrax.SPaRK), draws=2),
    "diffrax.SlowRK": Method(diffrax.SlowRK(), SCORE, stochastic_runge_kutta(diffrax.SlowRK), draws=2),
    "diffrax.Euler": Method(diffrax.Euler(), SCORE, euler),
    "diffrax.Heun": Method(diffrax.Heun(), SCORE, heun_in_time),
    "diffrax.Midpoint": Method(diffrax.Midpoint(), SCORE, midpoint_in_time),
    "diffrax.Ralston": Method(diffrax.Ralston(), SCORE, ralston_in_time),
    "diffrax.Bosh3": Method(diffrax.Bosh3(), SCORE, runge_kutta(diffrax.Bosh3)),
    "diffrax.Tsit5": Method(diffrax.Tsit5(), SCORE, runge_kutta(diffrax.Tsit5)),
    "diffrax.Dopri5": Method(diffrax.Dopri5(), SCORE, runge_kutta(diffrax.Dopri5)),
    "diffrax.Dopri8": Method(diffrax.Dopri8(), SCORE, runge_kutta(diffrax.Dopri8)),
    "Heun": Method(solvers.Heun(), NOISE, heun),
    "DDIM": Method(DDIM(), DATA, ddim),
    "DPMSolver2": Method(DPMSolver2(), NOISE, dpm_solver_2),
    "DPMSolver3": Method(DPMSolver3(), NOISE, dpm_solver_3),
    "DPMSolverPlusPlus2S": Method(DPMSolverPlusPlus2S(), DATA, dpm_solver_plus_plus_2s),
    "DPMSolverPlusPlus3S": Method(DPMSolverPlusPlus3S(), DATA, dpm_solver_plus_plus_3s),
    "DPMSolver2M": Method(DPMSolver2M(), NOISE, dpm_solver_2m, start=runge_kutta_start(1.0, (0,), dpm_solver_2m)),
    "DPMSolver3M": Method(
        DPMSolver3M(), NOISE, adams_bashforth(IN_NOISE, 3), start=runge_kutta_start(1.0, (1, 0), dpm_solver_2m)
    ),
    "DPMSolverPlusPlus2M": Method(
        DPMSolverPlusPlus2M(),
        DATA,
        dpm_solver_plus_plus_2m,
        start=runge_kutta_start(-1.0, (0,), dpm_solver_plus_plus_2m),
    ),
    "DPMSolverPlusPlus3M": Method(
        DPMSolverPlusPlus3M(),
        DATA,
        adams_bashforth(IN_DATA, 3),
        start=runge_kutta_start(-1.0, (1, 0), dpm_solver_plus_plus_2m),
    ),
    "UniPC(2)": Method(UniPC(2), DATA, uni_pc(2), start=runge_kutta_start(-1.0, (0,), adams_bashforth(IN_DATA, 1))),
    "UniPC(3)": Method(UniPC(3), DATA, uni_pc(3), start=runge_kutta_start(-1.0, (2, 0), dpm_solver_plus_plus_2m)),
    "ExponentialAdamsBashforth(3)": multistep(DATA, IN_DATA, 3, ExponentialAdamsBashforth(3)),
    "ExponentialAdamsBashforth(4, NoisePrediction())": multistep(
        NOISE, IN_NOISE, 4, ExponentialAdamsBashforth(4, NoisePrediction())
    ),
    "DEIS(3)": multistep(NOISE, IN_TIME, 3, DEIS(3)),
    "DEIS(4, NoiseToSignal())": multistep(NOISE, IN_RATIO, 4, DEIS(4, NoiseToSignal())),
}
