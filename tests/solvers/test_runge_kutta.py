"""diffrax's short Runge–Kutta methods, with their numbers known beforehand, against diffrax itself."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab.exact import GaussianMixture
from sdelab.solvers.runge_kutta import TABLEAUS, RungeKutta, with_known_numbers
from tests.solvers.cases import PROCESSES


def flow(sde):
    mixture = GaussianMixture(jnp.array([[-1.0, 0.0], [1.0, 0.5]]), jnp.array([0.2, 0.3]), jnp.array([0.4, 0.6]))
    return sdelab.ProbabilityFlow(sde, mixture.score(sde))


def by_diffrax(process, method, x_T, grid, **arguments):
    """The ODE as one would hand it to diffrax."""
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda s, x, args: -process.drift(x, -s)),
        method,
        -grid[0],
        -grid[-1],
        None,
        x_T,
        stepsize_controller=diffrax.StepTo(-grid),
        saveat=diffrax.SaveAt(t0=True, steps=True),
        max_steps=len(grid) - 1,
        **arguments,
    ).ys


@pytest.mark.parametrize("name", [pytest.param("VP", marks=pytest.mark.slow), "RectifiedFlow"])
def test_they_are_diffrax_to_rounding(name):
    """In float64; Euler's method, which evaluates at the start of a step only, to the data too."""
    with jax.enable_x64(True):
        process = flow(PROCESSES[name])
        grid = sdelab.grids.log_snr(process.sde, 6, t_min=0.02 * process.sde.t_max)
        x_T = process.sde.prior_sample(jax.random.key(0), (3, 2))
        for method in TABLEAUS:
            times = np.append(grid, 0.0) if method is diffrax.Euler else grid
            _, states = sdelab.trajectory(None, process, x_T, solver=method(), grid=times)
            expected = by_diffrax(process, method(), x_T, times)
            np.testing.assert_allclose(states, expected, rtol=1e-11, atol=1e-11, err_msg=method.__name__)


@pytest.mark.slow
def test_gradients_are_those_of_diffrax():
    """With respect to the process, whose numbers are then traced; `BacksolveAdjoint` is still diffrax's, and of an ODE."""
    with jax.enable_x64(True):
        grid, x_T = np.linspace(1.0, 0.5, 9), jnp.array([[0.3, -1.0]])

        def ours(beta_max, adjoint):
            process = flow(sdelab.VP(beta_max=beta_max))
            return jnp.sum(sdelab.sample(None, process, x_T, solver=diffrax.Heun(), grid=grid, adjoint=adjoint) ** 2)

        def theirs(beta_max):
            process = flow(sdelab.VP(beta_max=beta_max))
            states = by_diffrax(process, diffrax.Heun(), x_T, grid, adjoint=diffrax.DirectAdjoint())
            return jnp.sum(states[-1] ** 2)

        found = jax.grad(ours)(20.0, diffrax.RecursiveCheckpointAdjoint())
        np.testing.assert_allclose(found, jax.grad(theirs)(20.0), rtol=1e-9)
        np.testing.assert_allclose(jax.grad(ours)(20.0, diffrax.BacksolveAdjoint()), found, rtol=2e-2)


def test_a_mean_of_the_last_step_is_refused_as_by_every_solver_of_diffrax():
    process, finish = flow(sdelab.VP()), sdelab.solvers.NoiselessPredictor()
    for solver in (diffrax.Heun(), diffrax.Bosh3()):
        with pytest.raises(TypeError, match="NoiselessPredictor needs a solver whose step has a mean"):
            sdelab.sample(None, process, jnp.ones((1, 2)), solver=solver, grid=[1.0, 0.5], finish=finish)


class Renamed(diffrax.Heun):
    """A user's own, which may do something else."""


class Linear(sdelab.ProbabilityFlow):
    """A process of its own, whose drift may be another."""


def test_only_these_methods_on_these_processes_are_taken():
    process = flow(sdelab.VP())
    assert with_known_numbers(diffrax.Heun(), process) == RungeKutta(diffrax.Heun)
    assert with_known_numbers(Renamed(), process) is None
    assert with_known_numbers(diffrax.Tsit5(), process) is None
    assert with_known_numbers(diffrax.Heun(), Linear(process.sde, process.score)) is None
    assert with_known_numbers(diffrax.Euler(), sdelab.ReverseSDE(process.sde, process.score)) is None
