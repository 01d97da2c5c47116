"""Moments of the mixture through `sample`: adaptive and implicit steps, processes without a kernel.

Apart from `test_moments.py` so that neither module keeps too many compiled programs.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids
from tests.solvers.cases import ADAPTIVE, IMPLICIT, PROCESSES, STOCHASTIC
from tests.solvers.moments import (
    FLOW_BATCH,
    fine,
    grid,
    mixture,
    moments,
    process_of,
    scales,
    x_T,
)

BATCH, STEPS = 8192, 300  # of the runs through `sample`


def check_moments(x, sde, bias):
    """Means and covariance within 4 standard errors of BATCH samples, plus the discretisation's share `bias`."""
    exact = mixture().diffused(sde, sde.t_min)
    mean, covariance = np.asarray(exact.mean()), np.asarray(exact.covariance())
    x = np.asarray(x, np.float64)
    std = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(x.mean(0) - mean) <= std * (4 / np.sqrt(len(x)) + bias))
    # the fourth moments of the exact distribution give the standard error of the second ones
    z = np.asarray(exact.sample(jax.random.key(99), 200_000), np.float64) - mean
    error = np.sqrt(np.var(z[:, :, None] * z[:, None, :], axis=0) / len(x))
    scale = np.outer(std, std)
    assert np.all(np.abs(np.cov(x.T) - covariance) <= 4 * error + bias * scale), np.cov(x.T) / covariance


def errors_of_flow(name, solver, **arguments):
    """Through `sample`, on `OneOf` all processes: what is compiled for one serves the others."""
    x = sdelab.sample(None, process_of(name, "deterministic"), x_T(name, FLOW_BATCH), solver=solver, **arguments)
    return np.max(np.abs(moments(x) - fine(name)) / scales(PROCESSES[name]))


@pytest.mark.parametrize("solver", ADAPTIVE)
@pytest.mark.slow
def test_adaptive(solver):
    """Per sample and jointly. The tolerance is that of one step; their errors may all add up, over some dozens of steps.

    At 1e-3 Dopri5's estimate, sample by sample, misses errors of 0.4 on SubVP; at 1e-4 those of Midpoint and Ralston
    miss 0.09 and 0.03 on EDM, from sigma = 80, which is left out.
    """
    for control in (sdelab.sampling.PerSample(), sdelab.sampling.Joint()):
        for name in ("VP", "VE", "SubVP", "RectifiedFlow"):
            sde = PROCESSES[name]
            adaptively = dict(grid=[sde.t_max, sde.t_min], rtol=1e-4, atol=1e-4, error_control=control)
            assert errors_of_flow(name, ADAPTIVE[solver], **adaptively) <= 50 * 1e-4, name


@pytest.mark.parametrize("solver", IMPLICIT)
@pytest.mark.slow
def test_implicit(solver):
    """Adaptively, each sample alone, and on a grid; the first-order one to its order: 8 % of a variance in 300 steps."""
    first_order = solver == "diffrax.ImplicitEuler"
    for name in ("VP", "EDM"):
        ends = [PROCESSES[name].t_max, PROCESSES[name].t_min]
        error = errors_of_flow(name, IMPLICIT[solver], grid=ends, rtol=1e-3, atol=1e-3)
        assert error <= (100 if first_order else 50) * 1e-3, name
        if solver != "diffrax.Kvaerno5":  # it has a stage beyond the end of its step, and so cannot end near t = 0
            error = errors_of_flow(name, IMPLICIT[solver], grid=grid(name, STEPS))
            assert error <= (0.1 if first_order else 0.002), name


def test_one_pair_of_each_kind():
    """The same as above for VP, quickly: what the slow tests do for all."""
    sde = PROCESSES["VP"]
    score = mixture().score(sde)
    x_T = mixture().diffused(sde, sde.t_max).sample(jax.random.key(1), BATCH)
    grid = grids.log_snr(sde, STEPS)
    for name in ("EulerMaruyama", "Ancestral", "PC-Langevin"):
        x = sdelab.sample(jax.random.key(0), sdelab.ReverseSDE(sde, score), x_T, solver=STOCHASTIC[name], grid=grid)
        check_moments(x, sde, bias=0.03)
    x = sdelab.sample(None, sdelab.ProbabilityFlow(sde, score), x_T, solver=diffrax.Tsit5(), rtol=1e-4, atol=1e-4)
    check_moments(x, sde, bias=0.002)


class Cubic(sdelab.AbstractSDE):
    """A process given by drift and diffusion alone, stationary at pi: f = 1/2 g^2 grad log pi, a mixture's score."""

    t_min: float = 0.0
    t_max: float = 1.0

    def drift(self, x, t):
        return 0.5 * self.diffusion(t) ** 2 * mixture_score(x)

    def diffusion(self, t):
        return 1.0 + jnp.asarray(t) * 1.0

    def prior_sample(self, key, shape, dtype=None):
        return mixture().sample(key, shape[0])

    def prior_log_prob(self, x):
        return mixture().log_prob(x)


def mixture_score(x):
    return jax.vmap(jax.grad(lambda y: mixture().log_prob(y[None])[0]))(x)


@pytest.mark.parametrize("solver", ["EulerMaruyama", "diffrax.Euler", "diffrax.Heun", "diffrax.ShARK", "diffrax.SPaRK"])
def test_without_a_kernel(solver):
    """The score is grad log pi at every t, and pi stays: with c = 1 the reverse of a reversible process is itself."""
    process = sdelab.ReverseSDE(Cubic(), lambda x, t: mixture_score(x))
    x = sdelab.sample(
        jax.random.key(0), process, (4096, 2), solver=STOCHASTIC[solver], grid=grids.uniform(Cubic(), 100)
    )
    exact = mixture()
    std = np.sqrt(np.diag(np.asarray(exact.covariance())))
    assert np.all(np.abs(np.asarray(x).mean(0) - np.asarray(exact.mean())) < 0.08 * std)
    np.testing.assert_allclose(np.asarray(x).std(0) / std, 1.0, atol=0.05)


def test_kernel_free_process_is_refused_where_the_kernel_is_needed():
    process = sdelab.ReverseSDE(Cubic(), lambda x, t: mixture_score(x))
    for solver in ("Ancestral", "ReverseDiffusion", "PC-Langevin"):
        with pytest.raises(TypeError, match="kernel"):
            sdelab.sample(jax.random.key(0), process, (4, 2), solver=STOCHASTIC[solver])
