import jax.numpy as jnp

from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.scaled_noise import AbstractScaledNoise


class VEPreconditioner(AbstractScaledNoise):
    r"""EDM's form of the networks trained under VE, for any affine process: $F = -\epsilon$.

    In the variable $x/\alpha$ with noise $r = \sigma/\alpha$ they are the published coefficients, $c_{skip} = 1$, $c_{out} = r$,
    $c_{in} = 1$, $c_{noise} = \log(r/2)$; in $x$ itself $c_{in} = 1/\alpha$. The half is there because EDM's data lie in
    [-1, 1] and those of score_sde in [0, 1]: the network's input is not centred again. Karras et al. (2022), table 1,
    column VE, https://arxiv.org/abs/2206.00364.
    """

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -jnp.ones_like(sigma)

    def c_in(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / alpha

    def c_noise(self, t: Coefficient, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        ratio = sigma / alpha
        # finite at sigma = 0, where D = x is defined and a NaN label would spoil it
        return jnp.log(jnp.maximum(0.5 * ratio, jnp.finfo(ratio.dtype).tiny))
