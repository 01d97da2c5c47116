import jax.numpy as jnp

from sdelab.score.preconditioning.base import AbstractPreconditioner, Coefficient


class AbstractScaledNoise(AbstractPreconditioner):
    r"""The network predicts the noise up to a known factor: $\epsilon = n_{out} F$, hence $D = (x - \sigma n_{out} F)/\alpha$.

    So are most published networks. They differ in $n_{out}$, in the scale of their input and in their label.
    """

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / alpha

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -sigma / alpha * self.n_out(alpha, sigma)

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.zeros_like(sigma)
