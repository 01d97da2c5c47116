"""Numbers as arrays: made once, weakly typed, and never those of another value or precision."""

import jax
import jax.numpy as jnp
import numpy as np

import sdelab
from sdelab._compile import as_arrays
from sdelab.arguments import as_states


def test_a_number_is_weak_and_made_once():
    first, second = (as_arrays(sdelab.VP(beta_max=20.0)).beta_max for _ in range(2))
    assert first is second
    assert first.weak_type
    assert as_arrays({"n": 3, "beta": 0.25}) == {"n": 3, "beta": 0.25}
    half = jnp.ones(2, jnp.bfloat16)
    assert (first * half).dtype == jnp.bfloat16


def test_values_are_told_apart():
    zeros = [as_arrays(zero) for zero in (0.0, -0.0)]
    assert [np.signbit(zero) for zero in zeros] == [False, True]
    assert np.isnan(as_arrays(float("nan")))
    strong = as_arrays(np.float64(20.0))  # NumPy's numbers keep their type
    assert not strong.weak_type


def test_precision_is_that_of_the_call():
    value = 0.1234567890123
    assert as_arrays(value).dtype == jnp.float32
    with jax.enable_x64(True):
        wide = as_arrays(value)
        assert wide.dtype == jnp.float64
        assert float(wide) == value
    assert as_arrays(value).dtype == jnp.float32


def test_under_a_mesh_an_array_is_of_that_mesh():
    before = as_arrays(0.3125)
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        assert as_arrays(0.3125).sharding.mesh.axis_names == ("rows",)
    assert as_arrays(0.3125) is before


def test_what_is_made_while_tracing_is_a_value():
    """It outlives the trace."""
    traced = jax.jit(lambda x: x * as_arrays(0.0625))
    assert traced(2.0) == 0.125
    assert float(as_arrays(0.0625)) == 0.0625


def test_states_become_floating_point():
    assert as_states([[1, 2]]).dtype == jnp.float32
    x = jnp.ones((2, 2), jnp.bfloat16)
    assert as_states(x) is x
