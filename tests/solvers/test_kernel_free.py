"""Processes given by drift and diffusion alone: all solvers that need no kernel, and words from all that need one.

The process is nonlinear and stationary at a mixture pi, f = 1/2 g^2 grad log pi + J grad log pi with J antisymmetric: the
score is grad log pi at every t, and the probability flow is the rotation J grad log pi along the level lines of pi. So
the flow has an exact answer, log pi stays what it was; and the reverse SDE has one in its moments, those of pi.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from sdelab.solvers.catalog import DETERMINISTIC, STOCHASTIC
from sdelab.testing.order import draws_of, walk

PI = sdelab.exact.GaussianMixture(
    jnp.array([[1.0, 0.5], [-0.8, -0.3]]), jnp.array([0.3, 0.4]), weights=jnp.array([0.4, 0.6])
)
MEANS, VARIANCES, WEIGHTS = np.array([[1.0, 0.5], [-0.8, -0.3]]), np.array([0.3, 0.4]), np.array([0.4, 0.6])
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])


def log_pi_components(x):
    gaps = x[:, None, :] - jnp.asarray(MEANS, x.dtype)[None]
    variances = jnp.asarray(VARIANCES, x.dtype)[None]
    logs = jnp.log(jnp.asarray(WEIGHTS, x.dtype))[None] - jnp.log(variances) - 0.5 * jnp.sum(gaps**2, -1) / variances
    return logs, -gaps / variances[..., None]


def log_pi(x):
    return jax.nn.logsumexp(log_pi_components(x)[0], axis=1)


def score(x, t):
    logs, scores = log_pi_components(x)
    return jnp.sum(jax.nn.softmax(logs, axis=1)[..., None] * scores, axis=1)


class Rotation(sdelab.AbstractSDE):
    """Diffuses and rotates; at equilibrium."""

    t_min: float = 0.0
    t_max: float = 1.0

    def drift(self, x, t):
        s = score(x, t)
        return 0.5 * self.diffusion(t) ** 2 * s + s @ jnp.asarray(TURN, x.dtype).T

    def diffusion(self, t):
        return 1.0 + jnp.asarray(t) * 1.0

    def prior_sample(self, key, shape, dtype=None):
        return PI.sample(key, shape[0])

    def prior_log_prob(self, x):
        return PI.log_prob(x)


def exported():
    """Every solver that `sdelab.solvers` exports, as the catalogue sets it up, and the published tables."""
    ours = {name: s for name, s in {**DETERMINISTIC, **STOCHASTIC}.items() if "diffrax" not in name}
    return {
        **ours,
        "ReverseDiffusion(EulerSteps(100))": solvers.ReverseDiffusion(solvers.EulerSteps(100)),
        "AncestralDDPM()": solvers.AncestralDDPM(),
        "AncestralSMLD()": solvers.AncestralSMLD(),
    }


NEED_NO_KERNEL = {"EulerMaruyama()", "ReverseDiffusion(EulerSteps(100))"}


def process_for(solver):
    return (
        sdelab.ReverseSDE(Rotation(), score)
        if solver.kind == "stochastic"
        else sdelab.ProbabilityFlow(Rotation(), score)
    )


@pytest.mark.parametrize("name", sorted(set(exported()) - NEED_NO_KERNEL))
def test_refused_with_words(name):
    solver = exported()[name]
    with pytest.raises(TypeError, match=r"needs a process with a kernel .* Rotation gives drift and diffusion only"):
        sdelab.sample(jax.random.key(0), process_for(solver), (4, 2), solver=solver, grid=[1.0, 0.5, 0.1])


def test_the_catalogue_has_every_exported_solver():
    """So that a new solver cannot escape the two tests here."""
    kinds = {kind for kind in vars(solvers).values() if isinstance(kind, type)}
    kinds = {k for k in kinds if issubclass(k, solvers.AbstractReverseSolver) and not k.__name__.startswith("Abstract")}
    assert kinds <= {type(solver) for solver in exported().values()}


def diffrax_solvers(catalogue):
    return {name: solver for name, solver in catalogue.items() if name.startswith("diffrax")}


def some(names, quick):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


FIRST_ORDER = {"diffrax.Euler()", "diffrax.ImplicitEuler()"}
FLOWS = diffrax_solvers(DETERMINISTIC)


@pytest.mark.parametrize("name", some(FLOWS, {"diffrax.Tsit5()"}))
def test_flows_along_the_level_lines(name):
    steps, tolerance = (1000, 0.03) if name in FIRST_ORDER else (128, 1e-4)
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(3, 2)))
        flow = sdelab.ProbabilityFlow(Rotation(), score)
        y = walk(FLOWS[name], flow, x, grids.uniform(Rotation(), steps))
        np.testing.assert_allclose(log_pi(y), log_pi(x), atol=tolerance)
        assert np.all(np.linalg.norm(np.asarray(y - x), axis=1) > 0.5)  # a good way round


BATCH, SDE_STEPS = 10_000, 100
DIFFUSIONS = {
    **diffrax_solvers(STOCHASTIC),
    **{name: exported()[name] for name in sorted(NEED_NO_KERNEL)},  # a set has another order in each process
}


@pytest.mark.parametrize("name", some(DIFFUSIONS, {"EulerMaruyama()"}))
@pytest.mark.parametrize("level", [1.0, 0.5])
def test_moments_of_the_reverse_sde(name, level):
    """Mean, covariance and the mean of log pi within four standard errors and 2 % for the steps, first order and 1/100 long."""
    solver, rng = DIFFUSIONS[name], np.random.default_rng(1)
    x_T = PI.sample(jax.random.key(0), BATCH)
    process = sdelab.ReverseSDE(Rotation(), score, jnp.asarray(level))
    noise = rng.standard_normal((SDE_STEPS, draws_of(solver), BATCH, 2)).astype(np.float32)
    x = walk(solver, process, x_T, grids.uniform(Rotation(), SDE_STEPS), jnp.asarray(noise))
    mean = WEIGHTS @ MEANS
    gaps = MEANS - mean
    covariance = np.eye(2) * (WEIGHTS @ VARIANCES) + np.einsum("k,ki,kj->ij", WEIGHTS, gaps, gaps)
    std = np.sqrt(np.diag(covariance))
    sampled = np.asarray(x, np.float64)
    assert np.all(np.abs(sampled.mean(0) - mean) <= (4 / np.sqrt(BATCH) + 0.02) * std)
    assert np.all(np.abs(np.cov(sampled.T) - covariance) <= (4 * np.sqrt(3 / BATCH) + 0.02) * np.outer(std, std))
    entropy = np.asarray(log_pi(PI.sample(jax.random.key(9), BATCH)))
    difference = np.mean(np.asarray(log_pi(x))) - entropy.mean()
    assert abs(difference) <= 4 * entropy.std() * np.sqrt(2 / BATCH) + 0.02
    assert np.mean(np.linalg.norm(sampled - np.asarray(x_T), axis=1)) > 0.5 * std.max()
