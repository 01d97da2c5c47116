import equinox as eqx
import jax.numpy as jnp

from sdelab._checks import check_count, check_increasing, check_positive
from sdelab._typing import Scalar
from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.scaled_noise import AbstractScaledNoise


class VPPreconditioner(AbstractScaledNoise):
    r"""EDM's form of the networks trained under VP, for any affine process: $F = \epsilon$.

    In the variable $x/\alpha$ with noise $r = \sigma/\alpha$ they are the published coefficients, $c_{skip} = 1$,
    $c_{out} = -r$, $c_{in} = (1 + r^2)^{-1/2}$; in $x$ itself $c_{in} = (\alpha^2 + \sigma^2)^{-1/2}$. The label is the time, in
    steps of the table, at which VP has this noise level: $c_{noise} = (M - 1)\,t(r)$ with
    $t(r) = (\sqrt{\beta_{min}^2 + 2 \beta_d \log(1 + r^2)} - \beta_{min})/\beta_d$ and $\beta_d = \beta_{max} - \beta_{min}$. Under VP of
    the same rates it is `ScoreSDEVP`. Karras et al. (2022), table 1, column VP, https://arxiv.org/abs/2206.00364.

    Fields: 0 < `beta_min` < `beta_max`, the rates that the network was trained with; `n` = M >= 1.
    """

    beta_min: Scalar = 0.1
    beta_max: Scalar = 20.0
    n: int = eqx.field(default=1000, static=True)

    def __check_init__(self):
        check_positive(beta_min=self.beta_min)
        check_increasing(beta_min=self.beta_min, beta_max=self.beta_max)
        check_count(n=self.n)

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.ones_like(sigma)

    def c_in(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / jnp.sqrt(alpha**2 + sigma**2)

    def c_noise(self, t: Coefficient, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return (self.n - 1) * vp_time(sigma / alpha, self.beta_min, self.beta_max)


def vp_time(ratio: Coefficient, beta_min: Scalar, beta_max: Scalar) -> Coefficient:
    r"""The time at which VP with a linear rate has $\sigma/\alpha$ = `ratio`, where $e^{B(t)} = 1 + \mathrm{ratio}^2$."""
    total = jnp.log1p(ratio**2)
    # the published difference of roots, without its cancellation towards the data
    return 2.0 * total / (jnp.sqrt(beta_min**2 + 2.0 * (beta_max - beta_min) * total) + beta_min)
