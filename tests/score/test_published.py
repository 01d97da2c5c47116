"""The published networks' conventions, against the numbers of the published code and against one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import EDM, VE, VP, SubVP
from sdelab.score import (
    EDMPreconditioner,
    IDDPMPreconditioner,
    NetworkScore,
    ScoreSDEDiscreteVE,
    ScoreSDEDiscreteVP,
    ScoreSDEVE,
    ScoreSDEVP,
    VEPreconditioner,
    VPPreconditioner,
)
from sdelab.solvers.discretization import DDPM
from tests.score.cases import SDES, times_of, truth


class Watched:
    """A network with a given output that remembers what it saw."""

    def __init__(self, out):
        self.out = jnp.asarray(out)

    def __call__(self, params, x, c_noise, condition, keys=None):
        self.x, self.c_noise = x, c_noise
        return self.out


EDM_NETWORKS = {
    "edm_EDMPrecond_DhariwalUNet_heads8": EDMPreconditioner(),
    "edm_EDMPrecond_SongUNet_ddpmpp": EDMPreconditioner(),
    "edm_EDMPrecond_SongUNet_skip_skip": EDMPreconditioner(),
    "edm_VEPrecond_SongUNet_ncsnpp": VEPreconditioner(),
    "edm_VPPrecond_SongUNet_ddpmpp": VPPreconditioner(),
    "edm_iDDPMPrecond_DhariwalUNet": IDDPMPreconditioner(),
}


@pytest.mark.parametrize("name", list(EDM_NETWORKS))
def test_edm_sees_and_returns_what_was_published(load_fixture, name):
    published = load_fixture(f"B_nets/{name}")
    x, sigma = jnp.asarray(published["x"]), jnp.asarray(published["sigma"])
    network = Watched(published["F_x"][:, : x.shape[1]])  # iDDPM's second half is a variance
    score = NetworkScore(EDM(), EDM_NETWORKS[name], network, None)
    np.testing.assert_allclose(score.denoise(x, sigma), published["D_x"], rtol=1e-6, atol=1e-6 * sigma.max())
    np.testing.assert_allclose(network.x, published["net_in"], rtol=1e-6)
    lost = 2e-4 if "VPPrecond" in name else 1e-6  # log(1 + r^2) in float32; the next test has its truth
    np.testing.assert_allclose(network.c_noise, published["c_noise"], rtol=lost, atol=1e-7)


def test_the_label_of_vp_is_the_published_formula_in_float64():
    sigma = np.array([1e-4, 0.002, 0.02, 0.9, 30.0, 150.0])
    published = 999 * (np.sqrt(0.1**2 + 2 * 19.9 * np.log(1 + sigma**2)) - 0.1) / 19.9
    sigma32 = jnp.asarray(sigma, jnp.float32)
    label = VPPreconditioner().c_noise(sigma32, jnp.ones(6), sigma32)
    np.testing.assert_allclose(label, published, rtol=1e-6)


def test_the_table_of_iddpm_is_the_published_one(load_fixture):
    published = load_fixture("B_nets/edm_iDDPMPrecond_DhariwalUNet")["param:u"]
    levels = IDDPMPreconditioner().levels()
    np.testing.assert_allclose(levels[:-50], published[:-50], rtol=1e-4)
    np.testing.assert_allclose(levels, published, rtol=1e-3)  # the published table is made in float32 and loses digits
    sigma = jnp.asarray(levels, jnp.float32)
    labels = IDDPMPreconditioner().c_noise(sigma, jnp.ones_like(sigma), sigma)
    np.testing.assert_array_equal(labels, 999 - np.arange(1001))
    np.testing.assert_array_equal(IDDPMPreconditioner().c_noise(sigma[5], sigma[5], sigma[5] ** 2), 994.0)


SCORE_SDE = {
    "vp_continuous": (VP(), ScoreSDEVP()),
    "subvp_continuous": (SubVP(), ScoreSDEVP()),
    "ve_continuous": (VE(), ScoreSDEVE()),
    "vp_discrete": (VP(), ScoreSDEDiscreteVP()),
    "ve_discrete": (VE(), ScoreSDEDiscreteVE()),
}


@pytest.mark.parametrize("name", list(SCORE_SDE))
def test_score_sde_sees_and_returns_what_was_published(load_fixture, name):
    published = load_fixture("A_sde/score_fn")
    sde, preconditioner = SCORE_SDE[name]
    t, x = jnp.asarray(published["t"]), jnp.asarray(published["x"])
    network = Watched(published["net_out"])
    value = NetworkScore(sde, preconditioner, network, None)(x, t)
    np.testing.assert_allclose(network.x, x, rtol=1e-6)
    np.testing.assert_allclose(network.c_noise, published[f"{name}/labels"].astype(np.float32), rtol=2e-6)
    exact = name.startswith("ve")
    theirs = published[f"{name}/score"]
    np.testing.assert_allclose(value[:1], theirs[:1], rtol=5e-6 if exact else 3e-4)  # t = 1e-3: their std lost digits
    np.testing.assert_allclose(value[1:], theirs[1:], rtol=5e-6 if exact else 2e-5)
    if name.endswith("p_continuous"):
        with jax.enable_x64(True):
            std = np.asarray(sde.sigma(jnp.asarray(published["t"], jnp.float64)))
        np.testing.assert_allclose(value, -published["net_out"] / std[:, None, None, None], rtol=3e-6)


def test_the_table_index_is_that_of_the_time_at_every_step_of_the_table():
    """At $t = i/(N - 1)$, where truncating a rounded number would be off by one, and half a step further."""
    n = 1000
    with jax.enable_x64(True):
        std = np.sqrt(1.0 - np.cumprod(1.0 - np.asarray(DDPM(n=n).beta(jnp.arange(n)))))
    for shift in (0.0, 0.5):
        t = jnp.asarray(np.minimum((np.arange(n) + shift) / (n - 1), 1.0), jnp.float32)
        sigma = VP().sigma(t)
        factor = ScoreSDEDiscreteVP(n=n).n_out(VP().alpha(t), sigma)
        np.testing.assert_allclose(factor, sigma / std.astype(np.float32), rtol=1e-5, atol=1e-12)


def test_edm_s_form_of_a_vp_network_is_score_sde_s_under_vp():
    t = jnp.asarray([1e-5, 1e-3, 0.1, 0.5, 1.0])
    alpha, sigma = VP().alpha(t), VP().sigma(t)
    np.testing.assert_allclose(VPPreconditioner().c_noise(t, alpha, sigma), 999 * t, rtol=2e-6)
    np.testing.assert_allclose(VPPreconditioner().c_in(alpha, sigma), np.ones(5), rtol=1e-6)


VE_LIKE, VP_LIKE = (VEPreconditioner(), ScoreSDEVE(), ScoreSDEDiscreteVE()), (VPPreconditioner(), ScoreSDEDiscreteVP())


@pytest.mark.parametrize("preconditioner", [*VE_LIKE, *VP_LIKE, IDDPMPreconditioner()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", list(SDES))
def test_a_network_is_the_same_denoiser_under_every_process(name, preconditioner):
    """A published network knows x/alpha and sigma/alpha alone: carried to another process it denoises the same."""
    sde = SDES[name]
    t = times_of(sde).astype(np.float32)
    x0, eps, x, alpha, sigma = truth(sde, t)
    ratio = sigma / alpha
    kept = ((ratio > 0.012) & (ratio < 49))[:, 0]  # the levels that every one of the tables has

    def network(params, x, c_noise, condition, keys=None):
        return jnp.tanh(x) * jnp.cos(c_noise / 300)[:, None]

    def denoised(sde, x, t):
        return np.asarray(NetworkScore(sde, preconditioner, network, None).denoise(jnp.asarray(x, jnp.float32), t))

    theirs = denoised(sde, x, jnp.asarray(t))[kept]
    ours = denoised(EDM(), x0 + ratio * eps, jnp.asarray(np.minimum(ratio[:, 0], 80), jnp.float32))[kept]
    np.testing.assert_allclose(theirs, ours, atol=2e-5 * np.max(ratio[kept], initial=1.0), rtol=1e-4)


@pytest.mark.parametrize("preconditioner", [*VE_LIKE, *VP_LIKE, IDDPMPreconditioner(), ScoreSDEVP()])
@pytest.mark.parametrize("name", list(SDES))
def test_what_is_taken_for_noise_is_what_is_taken_from_the_data(name, preconditioner):
    r"""$x = \alpha D + \sigma\epsilon$ for any output of the network, at every time."""
    sde = SDES[name]
    t = times_of(sde).astype(np.float32)
    _, eps, x, alpha, sigma = truth(sde, t)
    x32 = jnp.asarray(x, jnp.float32)
    score = NetworkScore(sde, preconditioner, Watched(jnp.asarray(eps, jnp.float32)), None)
    parts = alpha * np.asarray(score.denoise(x32, t), np.float64), sigma * np.asarray(score.noise(x32, t), np.float64)
    assert np.all(np.abs(parts[0] + parts[1] - x) <= 3e-6 * (np.abs(parts[0]) + np.abs(parts[1]) + np.abs(x)))


def test_values_outside_the_domain_are_named():
    for make, words in [
        (lambda: VPPreconditioner(beta_min=0.0), "beta_min = 0.0 is not accepted"),
        (lambda: VPPreconditioner(n=0), "n = 0 is not accepted"),
        (lambda: IDDPMPreconditioner(c_1=-1.0), "c_1 = -1.0 is not accepted"),
        (lambda: ScoreSDEDiscreteVP(n=20), "beta_max = 20.0 must be less than n = 20"),
        (lambda: ScoreSDEDiscreteVE(sigma_min=60.0), "sigma_min = 60.0 must be less than sigma_max = 50.0"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
