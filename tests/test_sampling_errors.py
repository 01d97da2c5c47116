"""What bad input to `sample` gets: a clear error at the earliest moment."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers

SDE = sdelab.VP()
SCORE = sdelab.exact.GaussianMixture(jnp.array([[1.0, 0.5], [-0.8, -0.3]]), jnp.array([0.09, 0.16])).score(SDE)
KEY = jax.random.key(7)
GRID = grids.uniform(SDE, 20)


def reverse(score=SCORE, **fields):
    return sdelab.ReverseSDE(SDE, score, **fields)


def flow(score=SCORE):
    return sdelab.ProbabilityFlow(SDE, score)


ERRORS = [
    (dict(solver="euler"), TypeError, "solver = 'euler'"),
    (dict(solver=solvers.EulerMaruyama(), grid=[0.1, 0.5]), ValueError, "decrease strictly"),
    (dict(solver=solvers.EulerMaruyama(), grid=[1.5, 0.5]), ValueError, r"times in \[0, 1.0\]"),
    (dict(solver=solvers.EulerMaruyama(), grid=[0.5, -0.1]), ValueError, r"times in \[0, 1.0\]"),
    (dict(solver=solvers.EulerMaruyama(), grid=[0.5]), ValueError, "n \\+ 1 >= 2 times"),
    (dict(solver=solvers.EulerMaruyama(), grid=[0.5, np.nan]), ValueError, "finite"),
    (dict(solver=solvers.EulerMaruyama(), rtol=1e-3), ValueError, "no error estimate"),
    (dict(solver=diffrax.SEA(), rtol=1e-3), ValueError, "ShARK, SRA1, SPaRK"),
    (
        dict(solver=diffrax.Heun(), rtol=1e-3),
        ValueError,
        "Heun has no error estimate of a ReverseSDE.* ShARK, SRA1, SPaRK",
    ),
    (dict(solver=diffrax.HalfSolver(diffrax.Euler()), rtol=1e-3), ValueError, "ShARK, SRA1, SPaRK"),
    (dict(solver=diffrax.Tsit5()), TypeError, "deterministic solver"),
    (dict(solver=solvers.Heun()), TypeError, "deterministic solver"),
    (dict(solver=diffrax.ALIGN(1.0)), TypeError, "underdamped"),
    (dict(solver=solvers.Ancestral(), finish="tweedie"), TypeError, "finish = 'tweedie'"),
    (dict(solver=solvers.Ancestral(), adjoint=diffrax.BacksolveAdjoint()), TypeError, "BacksolveAdjoint"),
    (dict(solver=diffrax.ShARK(), rtol=1e-3, max_steps=0), ValueError, "max_steps = 0"),
    (dict(solver=diffrax.ShARK(), rtol=1e-9), ValueError, "below 1e-6"),
    (dict(solver=diffrax.ShARK(), rtol=-1.0), ValueError, "rtol = -1.0"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), ERRORS)
@pytest.mark.usefixtures("unhooked")
def test_errors_of_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        sdelab.sample(KEY, reverse(), (4, 2), **arguments)


@pytest.mark.parametrize(
    "solver",
    [solvers.EulerMaruyama(), solvers.Ancestral(), solvers.PredictorCorrector(), diffrax.EulerHeun(), diffrax.ShARK()],
)
def test_a_stochastic_solver_on_a_probability_flow(solver):
    with pytest.raises(TypeError, match="stochastic solver"):
        sdelab.sample(KEY, flow(), (4, 2), solver=solver, grid=GRID)


@pytest.mark.usefixtures("unhooked")
def test_other_errors():
    with pytest.raises(RuntimeError, match="max_steps = 3"):
        sdelab.sample(KEY, flow(), (4, 2), solver=diffrax.Tsit5(), rtol=1e-5, max_steps=3)
    with pytest.raises(ValueError, match="n = 0"):
        grids.uniform(SDE, 0)
    with pytest.raises(TypeError, match="process"):
        sdelab.sample(KEY, SDE, (4, 2), solver=solvers.EulerMaruyama())
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        sdelab.sample(0, reverse(), (4, 2), solver=solvers.EulerMaruyama())
    with pytest.raises(ValueError, match="one per sample"):
        sdelab.sample(solvers.sample_keys(KEY, 3), reverse(), (4, 2), solver=solvers.EulerMaruyama())
    with pytest.raises(ValueError, match="key = None"):
        sdelab.sample(None, reverse(), (4, 2), solver=solvers.EulerMaruyama())
    with pytest.raises(ValueError, match=r"grid starts at t = 0\.5"):
        sdelab.sample(KEY, reverse(), (4, 2), solver=solvers.EulerMaruyama(), grid=[0.5, 0.1])
    with pytest.raises(TypeError, match="halves the intervals"):
        sdelab.sample(KEY, reverse(), (4, 2), solver=diffrax.HalfSolver(diffrax.Euler()), grid=GRID)
    with pytest.raises(ValueError, match="grid ends where sigma = 0"):
        sdelab.sample(KEY, flow(), (4, 2), solver=diffrax.Heun(), grid=[1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match=r"grid ends at t = 0\.0"):
        sdelab.encode(flow(), jnp.ones((4, 2)), grid=[1.0, 0.5, 0.0])
    for there_or_back in (sdelab.encode, sdelab.sampling.decode):
        with pytest.raises(TypeError, match="which follows the flow both ways"):
            there_or_back(reverse(), jnp.ones((4, 2)))
        with pytest.raises(TypeError, match="diffrax's ODE solvers"):
            there_or_back(flow(), jnp.ones((4, 2)), solver=solvers.Heun())
    noise = solvers.StoredNoise(jnp.zeros((2, 1, 4, 2)))
    with pytest.raises(ValueError, match="noise has 2 steps"):
        sdelab.sample(KEY, reverse(), (4, 2), solver=solvers.EulerMaruyama(), grid=GRID, noise=noise)
    with pytest.raises(TypeError, match="shape of integers"):
        sdelab.sample(KEY, reverse(), (2.7, 2), solver=solvers.EulerMaruyama())
    with pytest.raises(TypeError, match="deterministic; accepted"):
        solvers.PredictorCorrector(solvers.Heun())
    with pytest.raises(TypeError, match="variance = 'posterior'"):
        solvers.Ancestral(variance="posterior")
    with pytest.raises(ValueError, match="not the process of the score"):
        sdelab.ReverseSDE(sdelab.VE(), SCORE)
    with pytest.raises(ValueError, match="not accepted by AncestralSMLD"):
        sdelab.sample(KEY, reverse(), (4, 2), solver=solvers.AncestralSMLD())
    process = sdelab.ReverseSDE(sdelab.VE(), lambda x, t: -x)
    with pytest.raises(ValueError, match="not accepted by AncestralDDPM"):
        sdelab.sample(KEY, process, (4, 2), solver=solvers.AncestralDDPM())
    with pytest.raises(ValueError, match=r"t_max = 80\.0 is not accepted by AncestralDDPM"):
        sdelab.sample(KEY, sdelab.ReverseSDE(sdelab.EDM(), lambda x, t: -x), (4, 2), solver=solvers.AncestralDDPM())
    with pytest.raises(ValueError, match="accepted: the shape of x"):
        sdelab.sample(KEY, reverse(lambda x, t: x[..., :1]), (4, 2), solver=solvers.EulerMaruyama(), grid=GRID)
    with pytest.raises(ValueError, match="leading axis must be the batch"):
        sdelab.sample(KEY, reverse(condition=jnp.zeros(3)), (4, 2), solver=solvers.EulerMaruyama())
    with pytest.raises(ValueError, match=r"stochasticity = 0\.5"):
        sdelab.sample(KEY, reverse(stochasticity=0.5), (4, 2), solver=solvers.Ancestral())
    with pytest.raises(ValueError, match="snr = -1"):
        solvers.Langevin(snr=-1.0)
    with pytest.raises(TypeError, match="corrector = "):
        solvers.PredictorCorrector(corrector="langevin")
    with pytest.raises(TypeError, match="concrete"):
        jax.jit(lambda b: grids.log_snr(sdelab.VP(beta_max=b), 10)[1])(20.0)
