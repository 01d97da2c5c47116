import equinox as eqx
import jax.numpy as jnp
import numpy as np

from sdelab._checks import check_count, check_increasing, check_positive
from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.scaled_noise import AbstractScaledNoise
from sdelab.score.preconditioning.vp import vp_time
from sdelab.score.tables import ddpm_log_alpha, table_index


class ScoreSDEDiscreteVP(AbstractScaledNoise):
    r"""score_sde's networks of DDPM, trained on a table of N noise levels: $s = -F/\tilde\sigma_i$, the label $t (N - 1)$.

    $\tilde\sigma_i = (1 - \prod_{j \le i} (1 - \beta_j))^{1/2}$ with $\beta_j$ linear from $\beta_{min}/N$ to $\beta_{max}/N$. The
    label is not rounded; the index into the table, $i = \lfloor t (N - 1) \rfloor$, is. So the noise is $n_{out} F$ with
    $n_{out} = \sigma/\tilde\sigma_i$, near 1 away from the data. $t$ is the time at which VP has this noise level (see
    `VPPreconditioner`): under VP of the same rates the time itself, and any other affine process sees the same network.
    Song et al. (2021), appendix B and C, https://arxiv.org/abs/2011.13456, and its code,
    https://github.com/yang-song/score_sde, models/utils.py.

    Fields: `n` = N >= 1; 0 < `beta_min` < `beta_max` < N, the rates that the network was trained with.
    """

    n: int = eqx.field(default=1000, static=True)
    beta_min: float = eqx.field(default=0.1, static=True, converter=float)
    beta_max: float = eqx.field(default=20.0, static=True, converter=float)

    def __check_init__(self):
        check_count(n=self.n)
        check_positive(beta_min=self.beta_min)
        check_increasing(beta_min=self.beta_min, beta_max=self.beta_max)
        check_increasing(beta_max=self.beta_max, n=self.n)

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        stds = np.sqrt(-np.expm1(2.0 * ddpm_log_alpha(self.n, self.beta_min, self.beta_max)))
        t = vp_time(sigma / alpha, self.beta_min, self.beta_max)
        # a time that went through alpha and sigma is good to a few digits less than one that did not
        index = jnp.minimum(table_index(t, self.n, slack=32), self.n - 1)
        return sigma * self.c_in(alpha, sigma) / jnp.asarray(stds, sigma.dtype)[index]

    def c_in(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / jnp.sqrt(alpha**2 + sigma**2)

    def c_noise(self, t: Coefficient, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return (self.n - 1) * vp_time(sigma / alpha, self.beta_min, self.beta_max)
