"""EDM's networks as published: output, denoiser, and its derivatives in the image and in every parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.nn.edm_cases import DHARIWAL, QUICK, SONG, assert_close, coefficients, published


@pytest.fixture(params=SONG + DHARIWAL)
def case(request):
    return published(request.param)


def test_network_and_denoiser(case):
    a = case.arrays
    c_skip, c_out, c_in = coefficients(case.precond, a["sigma"])
    network_out = case.apply(case.params, a["net_in"], a["c_noise"], case.condition)
    assert_close(network_out, a["F_x"], 2e-5)
    keep = a["x"].shape[-1]
    assert_close(c_in * a["x"], a["net_in"], 1e-6)
    assert_close(c_skip * a["x"] + c_out * network_out[..., :keep], a["D_x"], 2e-5)


def test_denoiser_at_one_noise_level_and_without_a_condition(case):
    a = case.arrays
    c_skip, c_out, c_in = coefficients(case.precond, np.full_like(a["sigma"], a["sigma"][1]))
    c_noise = np.full_like(a["c_noise"], a["c_noise"][1])
    out = case.apply(case.params, np.float32(c_in * a["x"]), c_noise, case.condition)
    assert_close(c_skip * a["x"] + c_out * out[..., : a["x"].shape[-1]], a["D_x_scalar"], 2e-5)
    if "D_x_nolabel" in a:
        c_skip, c_out, c_in = coefficients(case.precond, a["sigma"])
        out = case.apply(case.params, a["net_in"], a["c_noise"], jax.tree.map(jnp.zeros_like, case.condition))
        assert_close(c_skip * a["x"] + c_out * out, a["D_x_nolabel"], 2e-5)


def check_derivatives(name):
    case = published(name)
    a = case.arrays
    c_skip, c_out, c_in = (jnp.asarray(c, jnp.float32) for c in coefficients(case.precond, a["sigma"]))

    def pull_back(params, x):
        def denoise(params, x):
            out = case.function(params, c_in * x, jnp.asarray(a["c_noise"]), case.condition)
            return c_skip * x + c_out * out[..., : x.shape[-1]]

        return jax.vjp(denoise, params, x)[1](jnp.asarray(a["cotangent"]))

    compiled = jax.jit(pull_back, compiler_options=QUICK)
    by_parameter, by_image = compiled(case.params, jnp.asarray(a["x"]))
    assert_close(by_image, a["vjp_x"], 1e-4)
    norms = {name: np.linalg.norm(np.asarray(g, np.float64)) for name, g in case.named(by_parameter).items()}
    for name, norm in zip(a["param_names"], a["param_grad_l2"], strict=True):
        np.testing.assert_allclose(norms[name], norm, rtol=1e-4, err_msg=name)


def test_derivatives_of_a_denoiser():
    check_derivatives("iDDPMPrecond_DhariwalUNet")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SONG, DHARIWAL[0]])
def test_derivatives_of_each_denoiser(name):
    check_derivatives(name)
