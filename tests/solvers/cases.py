"""Processes and solvers that the solver tests run through, and what they are held against."""

import diffrax
import jax.numpy as jnp

import sdelab
from sdelab import solvers

PROCESSES = {
    "VP": sdelab.VP(),
    "VPCosine": sdelab.VPCosine(),
    "VE": sdelab.VE(),
    "VEExact": sdelab.VEExact(),
    "SubVP": sdelab.SubVP(),
    "EDM": sdelab.EDM(),
    "RectifiedFlow": sdelab.RectifiedFlow(),
    "FromSchedule": sdelab.FromSchedule(lambda t: jnp.cos(1.5 * t), lambda t: jnp.sin(1.5 * t)),
}

STOCHASTIC = {
    "EulerMaruyama": solvers.EulerMaruyama(),
    "ReverseDiffusion": solvers.ReverseDiffusion(),
    "Ancestral": solvers.Ancestral(),
    "Ancestral-forward": solvers.Ancestral(variance=solvers.ForwardVariance()),
    "PC-Langevin": solvers.PredictorCorrector(solvers.Ancestral(), solvers.Langevin(snr=0.1)),
    "PC-Langevin-predictor-first": solvers.PredictorCorrector(
        solvers.ReverseDiffusion(), solvers.Langevin(snr=0.1), solvers.PredictorFirst()
    ),
    "PC-Annealed": solvers.PredictorCorrector(solvers.EulerMaruyama(), solvers.AnnealedLangevin(snr=0.1, steps=2)),
    "diffrax.Euler": diffrax.Euler(),
    "diffrax.EulerHeun": diffrax.EulerHeun(),
    "diffrax.Heun": diffrax.Heun(),
    "diffrax.SEA": diffrax.SEA(),
    "diffrax.ShARK": diffrax.ShARK(),
    "diffrax.SRA1": diffrax.SRA1(),
    "diffrax.SPaRK": diffrax.SPaRK(),
    "diffrax.SlowRK": diffrax.SlowRK(),
}

DETERMINISTIC = {
    "Heun": solvers.Heun(),
    "diffrax.Euler": diffrax.Euler(),
    "diffrax.Heun": diffrax.Heun(),
    "diffrax.Midpoint": diffrax.Midpoint(),
    "diffrax.Ralston": diffrax.Ralston(),
    "diffrax.Bosh3": diffrax.Bosh3(),
    "diffrax.Tsit5": diffrax.Tsit5(),
    "diffrax.Dopri5": diffrax.Dopri5(),
    "diffrax.Dopri8": diffrax.Dopri8(),
}

IMPLICIT = {
    "diffrax.ImplicitEuler": diffrax.ImplicitEuler(),
    "diffrax.Kvaerno3": diffrax.Kvaerno3(),
    "diffrax.Kvaerno5": diffrax.Kvaerno5(),
    "diffrax.KenCarp4": diffrax.KenCarp4(),
}

ADAPTIVE = {name: DETERMINISTIC[name] for name in DETERMINISTIC if name not in ("Heun", "diffrax.Euler")}
