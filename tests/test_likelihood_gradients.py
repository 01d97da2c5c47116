"""Gradients of log_prob through each of diffrax's adjoints, against finite differences in float64."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab.likelihood import ExactTrace, Hutchinson, HutchPlusPlus
from sdelab.score import EDMPreconditioner, NetworkScore

TIGHT = dict(rtol=1e-8, atol=1e-8, solver=diffrax.Tsit5(), max_steps=1024)
GRID = dict(grid=np.linspace(1.0, 0.0, 25) ** 2 * 0.999 + 0.001, solver=diffrax.Heun())
RECURSIVE = diffrax.RecursiveCheckpointAdjoint()
CASES = {
    "recursive": (RECURSIVE, ExactTrace(), TIGHT),
    "backsolve": (diffrax.BacksolveAdjoint(), ExactTrace(), TIGHT),
    "direct, on a grid": (diffrax.DirectAdjoint(), Hutchinson(2), GRID),
}


def network(params, x, label, condition, keys=None):
    h = jnp.concatenate([x, label[:, None], condition[:, None]], axis=1)
    return jnp.tanh(h @ params["a"]) @ params["b"] + x


def point():
    """Parameters, beta_max, x and condition; and a direction in each."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"a": jax.random.normal(keys[0], (4, 8)), "b": 0.3 * jax.random.normal(keys[1], (8, 2))}
    at = (params, jnp.asarray(8.0), jax.random.normal(keys[2], (3, 2)), jax.random.normal(keys[3], (3,)))
    rng = np.random.default_rng(0)
    return at, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), at)


def total(at, adjoint, divergence, settings):
    params, beta_max, x, condition = at
    sde = sdelab.VP(beta_max=beta_max)
    flow = sdelab.ProbabilityFlow(sde, NetworkScore(sde, EDMPreconditioner(1.0), network, params), condition=condition)
    key = jax.random.key(1) if divergence.stochastic else None
    value = sdelab.log_prob(flow, x, adjoint=adjoint, divergence=divergence, key=key, **settings)
    return value @ jnp.array([1.0, 2.0, -0.5])


def differences(divergence, settings):
    """Central differences along the direction in each argument alone."""
    at, direction = point()
    value = jax.jit(lambda at: total(at, RECURSIVE, divergence, settings))

    def moved(index, step):
        parts = [jax.tree.map(lambda a, d, on=(i == index): a + step * d if on else a, a, d) for i, (a, d) in pairs]
        return float(value(tuple(parts)))

    pairs = list(enumerate(zip(at, direction, strict=True)))
    return [(moved(i, 1e-4) - moved(i, -1e-4)) / 2e-4 for i in range(len(at))]


@pytest.mark.slow
def test_gradients_are_finite_differences():
    """In the parameters, beta_max, x and the condition: to 1e-5 relative, what differences and tolerance leave."""
    with jax.enable_x64(True):
        at, direction = point()
        expected = {}
        for name, (adjoint, divergence, settings) in CASES.items():
            if id(settings) not in expected:
                expected[id(settings)] = differences(divergence, settings)
            gradient = jax.jit(jax.grad(lambda at, case=(adjoint, divergence, settings): total(at, *case)))(at)
            leaves = [[jax.tree.leaves(part) for part in tree] for tree in (gradient, direction)]
            along = [
                sum(float(jnp.vdot(g, d)) for g, d in zip(*pair, strict=True)) for pair in zip(*leaves, strict=True)
            ]
            np.testing.assert_allclose(along, expected[id(settings)], rtol=1e-5, err_msg=name)


def test_the_gradient_of_hutch_plus_plus_is_unbiased_in_the_scale_of_the_field():
    """d/da tr(a M) = tr M, also where the basis, which depends on a, is held constant."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        matrix, draws = jnp.asarray(rng.normal(size=(6, 6)) + 5 * np.outer(np.ones(6), rng.normal(size=6))), 4000
        x, kind = jnp.zeros((draws, 6)), HutchPlusPlus(2)
        probes = kind.probes(jax.random.split(jax.random.key(2), draws), x)

        def traces(a):
            return jnp.mean(kind(lambda x: a * jnp.sin(x) @ matrix.T, x, probes)[1], axis=0)

        slope = np.asarray(jax.jacfwd(traces)(1.3))
        assert abs(slope.mean() - np.trace(matrix)) < 4.5 * slope.std() / np.sqrt(draws)


def test_an_adjoint_without_a_meaning_is_refused():
    """An ImplicitAdjoint would give a gradient of zero without a word."""
    sde = sdelab.VP()
    flow = sdelab.ProbabilityFlow(sde, sdelab.exact.Gaussian(jnp.zeros(1), jnp.asarray(0.5)).score(sde))
    with pytest.raises(TypeError, match="ImplicitAdjoint"):
        sdelab.log_prob(flow, jnp.ones((1, 1)), adjoint=diffrax.ImplicitAdjoint())
