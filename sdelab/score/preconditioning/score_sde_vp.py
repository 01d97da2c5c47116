import jax.numpy as jnp

from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.scaled_noise import AbstractScaledNoise


class ScoreSDEVP(AbstractScaledNoise):
    r"""score_sde's networks of VP and sub-VP in continuous time: $s = -F/\sigma$, the input as it is, the label $999\,t$.

    The factor is 999 however many steps are taken. The label is the clock of the process that the network was trained
    under, on [0, 1]; `VPPreconditioner` takes a network of VP to another process. Song et al. (2021), appendix C,
    https://arxiv.org/abs/2011.13456, and its code, https://github.com/yang-song/score_sde, models/utils.py.
    """

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.ones_like(sigma)

    def c_in(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.ones_like(sigma)

    def c_noise(self, t: Coefficient, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 999.0 * t
