"""Counts of products against those done by hand, and by the compiler."""

import jax
import jax.numpy as jnp
import pytest

from sdelab.train.flops import product_flops


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_products_are_counted_through_calls_loops_and_branches():
    def network(w, x):
        def body(x, _):
            return jax.nn.relu(jax.checkpoint(jnp.dot)(x, w)), None

        x = jax.lax.scan(body, x, length=5)[0]
        x = jax.jit(lambda x: x @ w)(x)
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x, x)

    assert product_flops(network, shape(7, 7), shape(3, 7)) == 2 * 3 * 7 * 7 * (5 + 1 + 2)


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4)])
def test_a_convolution_without_margins_costs_what_the_compiler_says(stride, groups):
    def convolution(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), "VALID", dimension_numbers=numbers, feature_group_count=groups
        )

    arguments = shape(2, 9, 9, 8), shape(3, 3, 8 // groups, 12)
    cost = jax.jit(convolution).lower(*arguments).cost_analysis()
    assert product_flops(convolution, *arguments) == cost["flops"]
