"""`jit` of modules: what it traces, what its programs are told apart by, and that it does not wait."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab._compile import jit


class Scaled(eqx.Module):
    factor: object
    name: str = eqx.field(static=True, default="")


def counted(numbers=0):
    """What `jit` makes of a product, and how often it was traced."""
    traces = []

    def product(scaled, x, *rest):
        traces.append(rest)
        return {"product": scaled.factor * x, "rest": jnp.asarray(len(rest))}

    return jit(product, numbers=numbers), traces


def test_it_is_the_function():
    product, _ = counted()
    expected = np.float32(1.5) * np.arange(3, dtype=np.float32)
    for factor in (1.5, np.float32(1.5), jnp.float32(1.5)):
        for x in (np.arange(3, dtype=np.float32), jnp.arange(3.0)):
            np.testing.assert_array_equal(product(Scaled(factor), x)["product"], expected)
    assert int(product(Scaled(1.0), jnp.ones(2), "a", None, (1, 2))["rest"]) == 3


@pytest.mark.parametrize(("numbers", "programs"), [(0, 2), (1, 1)])
def test_new_numbers_are_new_programs_only_where_they_are_structure(numbers, programs):
    product, traces = counted(numbers)
    for factor in (2.0, 3.0, 2.0):
        assert float(product(Scaled(factor), jnp.ones(1))["product"][0]) == factor
    assert len(traces) == programs


def test_what_is_no_array_tells_programs_apart():
    product, traces = counted(1)
    for rest in (("a",), ("b",), ("a",), ((1, 2),), ((1, None),), ("a",)):
        product(Scaled(2.0), jnp.ones(1), *rest)
    product(Scaled(2.0, "named"), jnp.ones(1), "a")
    assert len(traces) == 5


def test_derivatives_and_maps_go_through():
    product, _ = counted(1)
    slope = jax.grad(lambda factor: jnp.sum(product(Scaled(factor), jnp.arange(4.0))["product"]))
    assert float(slope(2.0)) == 6.0
    rows = jax.vmap(lambda factor: product(Scaled(factor), jnp.ones(2))["product"])(jnp.arange(3.0))
    np.testing.assert_array_equal(rows, np.repeat(np.arange(3.0)[:, None], 2, axis=1))


@pytest.mark.parametrize("solver", [sdelab.solvers.DDIM(), diffrax.Heun()])
def test_sampling_does_not_wait_for_the_device(solver):
    """A solve of a large product in every step is not done when the call returns."""
    matrix = 1e-3 * jnp.ones((800, 800))
    flow, grid = sdelab.ProbabilityFlow(sdelab.VP(), lambda x, t: -x @ matrix), np.linspace(1.0, 0.1, 60)
    x_T = jnp.ones((800, 800))

    def draw():
        return sdelab.sample(None, flow, x_T, solver=solver, grid=grid)

    expected = np.asarray(draw())
    x = draw()
    assert not x.is_ready()
    np.testing.assert_array_equal(x, expected)
