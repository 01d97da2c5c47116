"""What bad input to a process gets: the argument, its value, and what is accepted."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import sdelab
from sdelab import EDM, VE, VP, FromSchedule, RectifiedFlow, SubVP, VEExact, VPCosine


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: VP(beta_min=-0.1), "beta_min = -0.1 is not accepted; beta_min must be a finite number >= 0"),
        (lambda: VP(beta_max=-1.0), "beta_max = -1.0"),
        (lambda: VP(beta_max=float("nan")), "beta_max = nan"),
        (lambda: SubVP(beta_min=-1.0), "beta_min = -1.0"),
        (lambda: VE(sigma_min=0.0), "sigma_min = 0.0 is not accepted; sigma_min must be a finite number > 0"),
        (lambda: VE(sigma_min=50.0, sigma_max=50.0), "sigma_min = 50.0 must be less than sigma_max = 50.0"),
        (lambda: VE(sigma_min=60.0), "sigma_min = 60.0 must be less than sigma_max = 50.0"),
        (lambda: VEExact(sigma_min=60.0), "sigma_min = 60.0 must be less than sigma_max = 50.0"),
        (lambda: VEExact(sigma_max=float("inf")), "sigma_max = inf"),
        (lambda: VPCosine(s=0.0), "s = 0.0 is not accepted"),
        (lambda: VPCosine(t_max=1.0), "t_max must be less than 1.0"),
        (lambda: RectifiedFlow(t_max=1.0), "t_max must be less than 1.0"),
        (lambda: EDM(t_min=80.0), "t_min = 80.0 must be less than t_max = 80.0"),
        (lambda: EDM(t_min=-1.0), "t_min = -1.0"),
        (lambda: VP(t_min=2.0), "t_min = 2.0 must be less than t_max = 1.0"),
        (lambda: FromSchedule(jnp.cos, jnp.sin, t_max=0.0), "t_max = 0.0"),
    ],
)
def test_fields(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE(), VEExact(), EDM(), RectifiedFlow(), VPCosine()], ids=repr)
def test_times(sde):
    x = jnp.ones((2, 3))
    later = 1.5 * sde.t_max
    for call in (sde.alpha, sde.sigma, sde.diffusion, sde.log_snr, lambda t: sde.drift(x, t)):
        with pytest.raises(
            ValueError, match=rf"t = {later} lies outside the process; accepted: t in \[0, {sde.t_max}\]"
        ):
            call(later)
        with pytest.raises(ValueError, match=r"t = -0\.1 lies outside the process"):
            call(-0.1)
        with pytest.raises(ValueError, match="t = nan lies outside the process"):
            call(float("nan"))
    for call in (sde.drift, sde.marginal, lambda x, t: sde.perturb(jax.random.key(0), x, t)):
        with pytest.raises(ValueError, match=r"t has shape \(3,\).*\(2, 3\) of x; accepted: a scalar, or shape \(2,\)"):
            call(x, jnp.full((3,), 0.5))
        with pytest.raises(ValueError, match=r"t has shape \(2, 1\)"):
            call(x, jnp.full((2, 1), 0.5))


def test_the_end_of_the_interval_up_to_its_rounding():
    """t_max in float32 may lie above t_max by a rounding, and is inside."""
    for sde in (RectifiedFlow(), VPCosine(), EDM()):
        assert jnp.isfinite(sde.sigma(jnp.float32(sde.t_max)))


def test_interval_ends_are_not_traced():
    with pytest.raises(TypeError, match="t_min and t_max must be concrete numbers"):
        jax.grad(lambda t_min: VP(t_min=t_min).alpha(0.5))(1e-3)
    with pytest.raises(TypeError, match="t_min and t_max must be concrete numbers"):
        jax.jit(lambda t_max: EDM(t_max=t_max).sigma(0.5))(80.0)


def test_log_snr_out_of_reach():
    with pytest.raises(ValueError, match=r"log_snr = -20.0 is not reached by the process; accepted: values in \[-"):
        VP().log_snr_inverse(-20.0)
    with pytest.raises(ValueError, match=r"log_snr = 10.0 is not reached.*9\.2"):
        VE().log_snr_inverse(10.0)


def test_without_the_annotations_checked():
    """The tests check annotations at run time, users do not: what they get instead, in an interpreter of its own."""
    code = """
import jax.numpy as jnp, sdelab, sdelab.testing
for call in (lambda: sdelab.FromSchedule(0.5, jnp.sin), lambda: sdelab.testing.check_sde("VP")):
    try:
        call()
    except TypeError as error:
        print(error)
"""
    root = pathlib.Path(sdelab.__file__).parents[1]
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert "expected a callable; got 0.5 of type float" in printed
    assert "sde = 'VP' is not a forward process" in printed
