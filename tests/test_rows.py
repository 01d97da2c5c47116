"""Rows of a table are the rows of its arrays, and a loop over a grid reads one of them a step."""

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import solvers
from sdelab._compile import jaxprs_in
from sdelab._rows import RowTable

TREE = {
    "a": jnp.arange(6.0).reshape(3, 2),
    "b": (jnp.array([True, False, True]), jnp.arange(3, dtype=jnp.int32)),
    "c": jnp.arange(12.0).reshape(3, 2, 1, 2) ** 2,
    "empty": jnp.zeros((3, 0, 4)),
    "d": jnp.array([0.5, 0.25, 0.125]),
}


@pytest.mark.parametrize("index", [0, 2])
def test_a_row_is_that_of_every_array(index):
    table = RowTable.of(TREE)
    found = table.as_tree(table.row(jnp.asarray(index)))
    assert len(table.columns) == 3  # floats, integers, booleans
    jax.tree.map(np.testing.assert_array_equal, found, jax.tree.map(lambda leaf: leaf[index], TREE))
    assert jax.tree.map(lambda leaf: leaf.dtype, found) == jax.tree.map(lambda leaf: leaf.dtype, TREE)


def test_gradients_come_back_to_the_arrays():
    def second(a, d):
        table = RowTable.of({"a": a, "d": d})
        tree = table.as_tree(table.row(jnp.asarray(1)))
        return jnp.sum(tree["a"] ** 2) * tree["d"]

    a, d = TREE["a"], TREE["d"]
    by_a, by_d = jax.grad(second, (0, 1))(a, d)
    np.testing.assert_allclose(by_a, 2 * d[1] * a * jnp.array([[0.0], [1.0], [0.0]]))
    np.testing.assert_allclose(by_d, [0.0, jnp.sum(a[1] ** 2), 0.0])


def reads(jaxpr, steps):
    """How many operations inside loops read one row of an array of so many."""
    count = 0
    for equation in jaxpr.eqns:
        inside = equation.primitive.name in ("while", "scan")
        for inner in jaxprs_in(equation.params):
            inner = getattr(inner, "jaxpr", inner)
            count += _rows_read(inner, steps) if inside else reads(inner, steps)
    return count


def _rows_read(jaxpr, steps):
    count = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("gather", "dynamic_slice"):
            count += equation.invars[0].aval.shape[:1] == (steps,)
        count += sum(_rows_read(getattr(inner, "jaxpr", inner), steps) for inner in jaxprs_in(equation.params))
    return count


@pytest.mark.parametrize("solver", [solvers.DDIM(), solvers.Heun(), solvers.SDEDPMSolverPlusPlus2M()], ids=repr)
def test_a_step_reads_one_row_of_each_dtype(solver):
    sde, steps = sdelab.VP(), 23
    score = sdelab.exact.Gaussian(jnp.zeros(2), 0.3).score(sde)
    process = (sdelab.ReverseSDE if solver.kind == "stochastic" else sdelab.ProbabilityFlow)(sde, score)
    grid = sdelab.grids.log_snr(sde, steps)

    def sample(x_T):
        return sdelab.sample(jax.random.key(0), process, x_T, solver=solver, grid=grid)

    # the next step's floats, integers and booleans; those of the steps alone are not in a loop
    assert reads(jax.make_jaxpr(sample)(jnp.zeros((4, 2))).jaxpr, steps) == 3


def test_times_remain_constants_beside_numbers_that_are_differentiated():
    """A score that has no derivative in time will do, though times and numbers are carried in one row."""
    x_T, grid = jnp.ones((2, 2)), np.linspace(1.0, 0.1, 6)

    def total(beta_max, in_time):
        sde = sdelab.VP(beta_max=beta_max)
        process = sdelab.ProbabilityFlow(sde, lambda x, t: -x * (1.0 + in_time(jnp.asarray(t))))
        return jnp.sum(sdelab.sample(None, process, x_T, solver=solvers.DDIM(), grid=grid))

    found = jax.grad(total)(20.0, eqxi.nondifferentiable)
    np.testing.assert_allclose(found, jax.grad(total)(20.0, lambda t: t), rtol=1e-6)
    assert abs(found) > 1e-3
