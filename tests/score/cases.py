"""One truth on every process: data, noise and state in float64 at float32 times, from near the data to the prior."""

import jax
import jax.numpy as jnp
import numpy as np

from sdelab import EDM, VE, VP, FromSchedule, RectifiedFlow, SubVP, VEExact, VPCosine

SDES = {
    "vp": VP(),
    "vp_cosine": VPCosine(),
    "ve": VE(),
    "ve_exact": VEExact(),
    "subvp": SubVP(),
    "edm": EDM(),
    "rectified_flow": RectifiedFlow(),
    "from_schedule": FromSchedule(lambda t: jnp.cos(1.5 * t), lambda t: jnp.sin(1.5 * t)),
}


def times_of(sde):
    """From 1e-5 of the interval to its very end."""
    return np.append(np.geomspace(1e-5, 0.5, 6), [0.9, 1.0]) * sde.t_max


def truth(sde, t):
    """x0, eps, x in float64 at float32 times, with the float64 kernel."""
    random = np.random.RandomState(0)
    x0, eps = 0.5 * random.normal(size=(len(t), 3)), random.normal(size=(len(t), 3))
    with jax.enable_x64(True):
        alpha, sigma = (np.asarray(f(jnp.asarray(t, jnp.float64)))[:, None] for f in (sde.alpha, sde.sigma))
    return x0, eps, alpha * x0 + sigma * eps, alpha, sigma
