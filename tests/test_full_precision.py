"""No product of exact mathematics is rounded: accelerators take float32 factors in 8 or 11 bits, unless asked for all 24.

Such products are `dot_general` in the traced program, and each must ask for the highest precision. Networks are another matter:
theirs are fast and rounded by default.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import VP, divergence, exact, geometry, interpolation

D = 4
SDE = VP()
HIGHEST = (jax.lax.Precision.HIGHEST,) * 2
X = jax.random.normal(jax.random.key(0), (3, D))
STATES = jax.random.normal(jax.random.key(1), (5, 3, D))
COVARIANCE = np.diag([1.0, 0.5, 0.3, 0.2]).astype(np.float32) + 0.1


def products(jaxpr):
    """The precision of every product, also inside of loops and calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.params["precision"]
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def check(function, *arguments):
    """All products are exact. How many there are."""
    found = list(products(jax.make_jaxpr(function)(*arguments).jaxpr))
    assert set(found) <= {HIGHEST}, set(found)
    return len(found)


DISTRIBUTIONS = {
    "full": exact.Gaussian(jnp.zeros(D), jnp.asarray(COVARIANCE)),
    "mixture": exact.GaussianMixture(STATES[:2, 0], np.stack([COVARIANCE, COVARIANCE.T @ COVARIANCE]), jnp.ones(2)),
    "low rank": exact.Gaussian(jnp.zeros(D), exact.LowRank(STATES[0, :2].T, jnp.asarray(0.1))),
    "data": exact.Empirical(STATES.reshape(-1, D)),
}
OF_SCORE = {
    "score": lambda score, x: score(x, 0.5),
    "denoise": lambda score, x: score.denoise(x, 0.5),
    "log_prob": lambda score, x: score.log_prob(x, 0.5),
    "divergence": lambda score, x: score.divergence(x, 0.5),
    "product": lambda score, x: score.posterior_covariance_product(x, 0.5, x),
    "diagonal": lambda score, x: score.posterior_covariance_diagonal(x, 0.5),
    "derivative": lambda score, x: jax.jvp(lambda x: score(x, 0.5), (x,), (x,))[1],
    "gradient": lambda score, x: jax.grad(lambda x: jnp.sum(score(x, 0.5) ** 2))(x),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_exact_scores(name):
    score = DISTRIBUTIONS[name].score(SDE)
    assert sum(check(lambda x, function=function: function(score, x), X) for function in OF_SCORE.values()) > 0


@pytest.mark.parametrize("name", ["full", "mixture"])
def test_samples_and_moments(name):
    distribution = DISTRIBUTIONS[name]
    assert check(lambda key: distribution.sample(key, 3), jax.random.key(0)) > 0
    check(lambda: distribution.diffused(SDE, 0.5).log_prob(X))


def test_interpolation():
    assert check(lambda a, b: interpolation.interpolate(a, b, np.linspace(0.0, 1.0, 3)), X, X[::-1]) > 0


def test_traces():
    trace = divergence.HutchPlusPlus(count=1)
    keys = jax.random.split(jax.random.key(0), 3)
    assert check(lambda x: trace(jnp.sin, x, trace.probes(keys, x))[1], X) > 0


def test_geometry():
    flow = geometry.GaussianFlow(SDE, DISTRIBUTIONS["full"])
    assert check(lambda x: flow(x, 1.0, 0.1), X) > 0
    assert check(lambda states: geometry.rotation_plane(states).residual, STATES) > 0
    assert check(lambda states: geometry.principal_components(states, 2).project(states), STATES) > 0
