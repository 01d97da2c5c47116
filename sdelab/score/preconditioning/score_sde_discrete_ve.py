import equinox as eqx
import jax.numpy as jnp

from sdelab._checks import check_count, check_increasing, check_positive
from sdelab._typing import Scalar
from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.scaled_noise import AbstractScaledNoise


class ScoreSDEDiscreteVE(AbstractScaledNoise):
    r"""score_sde's networks of SMLD, trained on a table of N noise levels: $F$ is the score, label 0 the *largest* level.

    The label is $(1 - t) (N - 1)$ rounded, half to even, where $t = \log(\sigma/\sigma_{min})/\log(\sigma_{max}/\sigma_{min})$: the level
    nearest on a logarithmic scale, cut to [0, N - 1]. Under VE of the same field values $t$ is the time; under another affine
    process everything is in the variable $x/\alpha$ with noise $\sigma/\alpha$, as in `ScoreSDEVE`.
    Song et al. (2021), appendix B and C, https://arxiv.org/abs/2011.13456, and its code,
    https://github.com/yang-song/score_sde, models/utils.py.

    Fields: `n` = N >= 1; 0 < `sigma_min` < `sigma_max`, the levels that the network was trained with.
    """

    n: int = eqx.field(default=1000, static=True)
    sigma_min: Scalar = 0.01
    sigma_max: Scalar = 50.0

    def __check_init__(self):
        check_count(n=self.n)
        check_positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_increasing(sigma_min=self.sigma_min, sigma_max=self.sigma_max)

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -sigma / alpha

    def c_in(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / alpha

    def c_noise(self, t: Coefficient, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        fraction = jnp.log(self.sigma_max * alpha / sigma) / jnp.log(self.sigma_max / self.sigma_min)
        return jnp.clip(jnp.round((self.n - 1) * fraction), 0.0, self.n - 1.0)
