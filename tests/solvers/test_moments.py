r"""Moments of a two-component mixture at t_min: every process with every solver, from the exact marginal at t_max.

Each solver's step is compiled once, on `OneOf` all processes; the steps are taken from Python. Two numbers of steps, n
and 2 n, tell the bias of the finer result, to leading order: $B = |m_n - m_{2n}|/(2^p - 1)$ for a method of order p. What is
allowed is twice that, for the orders that follow (B itself is at most `LARGEST_BIAS`), and the statistical error:

- a deterministic solver starts from the same states as the fine solution by Dopri8, and there is none;
- a stochastic one has four standard errors of `WALK_BATCH` samples, and B has its own.
"""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids
from sdelab.solvers.catalog import DETERMINISTIC as CATALOGUED_DETERMINISTIC
from sdelab.solvers.catalog import STOCHASTIC as CATALOGUED_STOCHASTIC
from sdelab.solvers.diffrax_terms import is_per_sample
from sdelab.solvers.table import claimed_order
from sdelab.testing.one_of import OneOf
from sdelab.testing.order import draws_of, walk
from tests.solvers.cases import ADAPTIVE, IMPLICIT, PROCESSES, STOCHASTIC

BATCH, STEPS = 8192, 300  # of the runs through `sample`
WALK_BATCH, FLOW_BATCH, FLOW_STEPS, WALK_STEPS = 4096, 512, (80, 160), (100, 200)
LARGEST_BIAS = 0.1  # of a standard deviation: with more, two step sizes would not tell much
ROUNDING = 2e-4  # of float32 states over some hundred steps


def mixture():
    means = jnp.array([[1.0, 0.5], [-0.8, -0.3]])
    return sdelab.exact.GaussianMixture(means, jnp.array([0.09, 0.16]), jnp.array([0.4, 0.6]))


def process_of(name, kind):
    """The process as one of all: a step that is compiled for it serves the others."""
    sde = OneOf(tuple(PROCESSES.values()), list(PROCESSES).index(name))
    return (sdelab.ReverseSDE if kind == "stochastic" else sdelab.ProbabilityFlow)(sde, mixture().score(sde))


def moments(x):
    """Means and covariances, as one array."""
    x = np.asarray(x, np.float64)
    return np.concatenate([x.mean(0), np.cov(x.T).ravel()])


def scales(sde):
    std = np.sqrt(np.diag(np.asarray(mixture().diffused(sde, sde.t_min).covariance())))
    return np.concatenate([std, np.outer(std, std).ravel()])


def exact_moments(sde):
    exact = mixture().diffused(sde, sde.t_min)
    return np.concatenate([np.asarray(exact.mean()), np.asarray(exact.covariance()).ravel()])


@functools.cache
def standard_errors(name):
    """Of means and covariances of one sample, in their scales: the exact fourth moments, by a large draw."""
    sde = PROCESSES[name]
    z = np.asarray(mixture().diffused(sde, sde.t_min).sample(jax.random.key(99), 20_000), np.float64)
    z -= z.mean(0)
    products = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1)
    return np.concatenate([z.std(0), products.std(0)]) / scales(sde)


@functools.cache
def x_T(name, batch):
    sde = PROCESSES[name]
    return mixture().diffused(sde, sde.t_max).sample(jax.random.key(1), batch)


@functools.cache
def grid(name, n):
    return grids.log_snr(PROCESSES[name], n)


@functools.cache
def fine(name):
    """The exact flow's moments from `x_T`, by Dopri8, and in closed form up to the draw of `x_T`."""
    start = x_T(name, FLOW_BATCH)
    return moments(walk(diffrax.Dopri8(), process_of(name, "deterministic"), start, grid(name, 200)))


def check(errors, differences, claimed, allowed):
    """The finer result's errors in its scales, against what the two step sizes tell, and `allowed`."""
    bias = np.max(np.abs(differences)) / (2.0 ** (claimed or 1) - 1.0)
    assert bias <= LARGEST_BIAS, f"the step sizes differ by {bias:.2g}"
    assert np.all(np.abs(errors) <= 2.0 * bias + allowed), (errors, bias, allowed)


OWN_TABLES = ("AncestralDDPM()", "AncestralSMLD()")  # one process each: tests/solvers/test_score_sde_fixtures.py
ON_EVERY_PROCESS = {name: solver for name, solver in CATALOGUED_STOCHASTIC.items() if name not in OWN_TABLES}
EXPLICIT = {name: solver for name, solver in CATALOGUED_DETERMINISTIC.items() if not is_per_sample(solver)}


@pytest.mark.parametrize("solver", ON_EVERY_PROCESS)
@pytest.mark.slow
def test_stochastic(solver):
    """A Langevin corrector of snr 0.16 has a bias of its own, 1/(1 - snr^2) - 1 = 2.6 % of a variance in equilibrium."""
    bias = 0.03 if "Corrector" in solver else 0.0
    solver = ON_EVERY_PROCESS[solver]
    keys = jax.random.split(jax.random.key(0), 2)
    noises = [jax.random.normal(k, (n, draws_of(solver), WALK_BATCH, 2)) for k, n in zip(keys, WALK_STEPS, strict=True)]
    for name, sde in PROCESSES.items():
        process, start = process_of(name, "stochastic"), x_T(name, WALK_BATCH)
        coarse, finer = (
            moments(walk(solver, process, start, grid(name, n), noise)) / scales(sde)
            for n, noise in zip(WALK_STEPS, noises, strict=True)
        )
        error = 4.0 * standard_errors(name) / np.sqrt(WALK_BATCH)
        check(
            finer - exact_moments(sde) / scales(sde), coarse - finer, claimed_order(solver, "stochastic"), error + bias
        )


@pytest.mark.parametrize("solver", EXPLICIT)
@pytest.mark.slow
def test_deterministic(solver):
    solver = EXPLICIT[solver]
    claimed = claimed_order(solver, "deterministic")
    steps = (200, 400) if claimed == 1 else FLOW_STEPS
    for name, sde in PROCESSES.items():
        process, start = process_of(name, "deterministic"), x_T(name, FLOW_BATCH)
        coarse, finer = (moments(walk(solver, process, start, grid(name, n))) / scales(sde) for n in steps)
        check(finer - fine(name) / scales(sde), coarse - finer, claimed, ROUNDING)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.slow
def test_the_fine_flow_carries_the_mixture(name):
    """Dopri8 from draws of the marginal at t_max ends in draws of that at t_min, to four standard errors."""
    sde = PROCESSES[name]
    errors = (fine(name) - exact_moments(sde)) / scales(sde)
    assert np.all(np.abs(errors) <= 4.0 * standard_errors(name) / np.sqrt(FLOW_BATCH))


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


@pytest.mark.parametrize("solver", ADAPTIVE)
@pytest.mark.parametrize("name", ["VP", "VE", "SubVP", "RectifiedFlow"])
@pytest.mark.slow
def test_adaptive(name, solver):
    sde = PROCESSES[name]
    flow = sdelab.ProbabilityFlow(sde, mixture().score(sde))
    x_T = mixture().diffused(sde, sde.t_max).sample(jax.random.key(1), BATCH)
    # at 1e-3 Dopri5's estimate, sample by sample, misses errors of 0.4 on SubVP, which fall with the tolerance
    x = sdelab.sample(None, flow, x_T, solver=ADAPTIVE[solver], rtol=1e-4, atol=1e-4)
    check_moments(x, sde, bias=0.005)
    joint = sdelab.sample(
        None, flow, x_T, solver=ADAPTIVE[solver], rtol=1e-4, atol=1e-4, error_control=sdelab.sampling.Joint()
    )
    check_moments(joint, sde, bias=0.005)


@pytest.mark.parametrize("solver", IMPLICIT)
@pytest.mark.parametrize("name", ["VP", "EDM"])
@pytest.mark.slow
def test_implicit(name, solver):
    """Adaptively, each sample alone, and on a grid; the first-order one to its order."""
    sde = PROCESSES[name]
    flow = sdelab.ProbabilityFlow(sde, mixture().score(sde))
    x_T = mixture().diffused(sde, sde.t_max).sample(jax.random.key(1), 1024)
    x = sdelab.sample(None, flow, x_T, solver=IMPLICIT[solver], rtol=1e-3, atol=1e-3)
    check_moments(x, sde, bias=0.03 if solver == "diffrax.ImplicitEuler" else 0.005)
    if solver != "diffrax.Kvaerno5":  # it has a stage beyond the end of its step, and so cannot end near t = 0
        on_grid = sdelab.sample(None, flow, x_T, solver=IMPLICIT[solver], grid=grids.log_snr(sde, STEPS))
        check_moments(on_grid, sde, bias=0.1 if solver == "diffrax.ImplicitEuler" else 0.005)


@pytest.mark.slow
def test_adaptive_sde_steps_are_unbiased():
    """Variance ratio 1 +- 0.02 in one dimension, where redrawing the noise on rejection gives 2.3."""
    sde = sdelab.VP()
    gaussian = sdelab.exact.Gaussian(jnp.zeros(1), jnp.asarray(0.25))
    process = sdelab.ReverseSDE(sde, gaussian.score(sde))
    x_T = gaussian.diffused(sde, 0.3).sample(jax.random.key(1), 40_000)
    x, info = sdelab.sample_with_info(
        jax.random.key(0), process, x_T, solver=diffrax.ShARK(), grid=[0.3, sde.t_min], rtol=1e-3, atol=1e-3
    )
    assert int(info.rejected.sum()) > 0
    exact = float(sde.alpha(sde.t_min) ** 2 * 0.25 + sde.sigma(sde.t_min) ** 2)
    np.testing.assert_allclose(np.var(np.asarray(x)) / exact, 1.0, atol=0.02)


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
