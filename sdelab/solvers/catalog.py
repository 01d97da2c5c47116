"""The solvers that the table and the tests go through, by the name under which one writes them, with default settings."""

import diffrax

from sdelab.solvers.adams_bashforth import DEIS, ExponentialAdamsBashforth
from sdelab.solvers.ancestral import Ancestral, AncestralDDPM, AncestralSMLD, ForwardVariance
from sdelab.solvers.ancestral_step import AncestralStep
from sdelab.solvers.churn import Churn
from sdelab.solvers.corrector import AnnealedLangevin, Langevin
from sdelab.solvers.ddim import DDIM, StochasticDDIM
from sdelab.solvers.dpm_solver import DPMSolver2, DPMSolver3
from sdelab.solvers.dpm_solver_multistep import (
    DPMSolver2M,
    DPMSolver3M,
    DPMSolverPlusPlus2M,
    DPMSolverPlusPlus3M,
)
from sdelab.solvers.dpm_solver_plus_plus import DPMSolverPlusPlus2S, DPMSolverPlusPlus3S
from sdelab.solvers.euler_maruyama import EulerMaruyama
from sdelab.solvers.exponential_euler import ExponentialEuler
from sdelab.solvers.heun import Heun
from sdelab.solvers.predictor_corrector import PredictorCorrector
from sdelab.solvers.reverse_diffusion import ReverseDiffusion
from sdelab.solvers.sde_dpm_solver import SDEDPMSolverPlusPlus1, SDEDPMSolverPlusPlus2M
from sdelab.solvers.unipc import UniPC

DETERMINISTIC: dict[str, diffrax.AbstractSolver] = {
    "DDIM()": DDIM(),
    "Heun()": Heun(),
    "DPMSolver2()": DPMSolver2(),
    "DPMSolver3()": DPMSolver3(),
    "DPMSolverPlusPlus2S()": DPMSolverPlusPlus2S(),
    "DPMSolverPlusPlus3S()": DPMSolverPlusPlus3S(),
    "DPMSolver2M()": DPMSolver2M(),
    "DPMSolver3M()": DPMSolver3M(),
    "DPMSolverPlusPlus2M()": DPMSolverPlusPlus2M(),
    "DPMSolverPlusPlus3M()": DPMSolverPlusPlus3M(),
    **{f"UniPC(order={p})": UniPC(order=p) for p in (1, 2, 3)},
    **{f"ExponentialAdamsBashforth(order={p})": ExponentialAdamsBashforth(order=p) for p in (1, 2, 3, 4)},
    **{f"DEIS(order={p})": DEIS(order=p) for p in (1, 2, 3, 4)},
    "diffrax.Euler()": diffrax.Euler(),
    "diffrax.Heun()": diffrax.Heun(),
    "diffrax.Midpoint()": diffrax.Midpoint(),
    "diffrax.Ralston()": diffrax.Ralston(),
    "diffrax.Bosh3()": diffrax.Bosh3(),
    "diffrax.Tsit5()": diffrax.Tsit5(),
    "diffrax.Dopri5()": diffrax.Dopri5(),
    "diffrax.Dopri8()": diffrax.Dopri8(),
    "diffrax.ImplicitEuler()": diffrax.ImplicitEuler(),
    "diffrax.Kvaerno3()": diffrax.Kvaerno3(),
    "diffrax.Kvaerno5()": diffrax.Kvaerno5(),
    "diffrax.KenCarp4()": diffrax.KenCarp4(),
}

STOCHASTIC: dict[str, diffrax.AbstractSolver] = {
    "EulerMaruyama()": EulerMaruyama(),
    "ReverseDiffusion()": ReverseDiffusion(),
    "Ancestral()": Ancestral(),
    "Ancestral(variance=ForwardVariance())": Ancestral(variance=ForwardVariance()),
    "AncestralDDPM()": AncestralDDPM(),
    "AncestralSMLD()": AncestralSMLD(),
    "StochasticDDIM()": StochasticDDIM(),
    "ExponentialEuler()": ExponentialEuler(),
    "SDEDPMSolverPlusPlus1()": SDEDPMSolverPlusPlus1(),
    "SDEDPMSolverPlusPlus2M()": SDEDPMSolverPlusPlus2M(),
    "AncestralStep(Heun())": AncestralStep(Heun()),
    "Churn(Heun(), s_churn=40.0)": Churn(Heun(), s_churn=40.0),
    "PredictorCorrector(predictor=Ancestral(), corrector=Langevin())": PredictorCorrector(
        predictor=Ancestral(), corrector=Langevin()
    ),
    "PredictorCorrector(corrector=AnnealedLangevin())": PredictorCorrector(corrector=AnnealedLangevin()),
    "diffrax.Euler()": diffrax.Euler(),
    "diffrax.EulerHeun()": diffrax.EulerHeun(),
    "diffrax.Heun()": diffrax.Heun(),
    "diffrax.SEA()": diffrax.SEA(),
    "diffrax.ShARK()": diffrax.ShARK(),
    "diffrax.SRA1()": diffrax.SRA1(),
    "diffrax.SPaRK()": diffrax.SPaRK(),
    "diffrax.SlowRK()": diffrax.SlowRK(),
}
