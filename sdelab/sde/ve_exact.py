import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._broadcast import expand_right
from sdelab._checks import as_time, check_increasing, check_interval, check_positive, concrete_time
from sdelab._numerics import safe_sqrt
from sdelab._typing import Scalar, State, Time
from sdelab.sde.base import AbstractAffineSDE


class VEExact(AbstractAffineSDE):
    r"""Variance-exploding SDE with its exact transition kernel, $\sigma(t)^2 = \sigma_{min}^2 (r^{2t} - 1)$.

    Drift and diffusion are those of `VE`, $r = \sigma_{max}/\sigma_{min}$ and $\alpha = 1$, but the kernel starts from
    clean data: $\sigma(0) = 0$, so that $\sigma(t)$ is smaller than the published one by 7.7 times at t = 1e-3.
    The prior is $N(0, \sigma(t_{max})^2 I)$. Song et al. (2021), appendix C, https://arxiv.org/abs/2011.13456.

    Fields: 0 < `sigma_min` < `sigma_max`, in units of the data.
    """

    sigma_min: Scalar = 0.01
    sigma_max: Scalar = 50.0
    t_min: float = eqx.field(default=1e-5, static=True, converter=concrete_time)
    t_max: float = eqx.field(default=1.0, static=True, converter=concrete_time)

    def __check_init__(self):
        check_positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_increasing(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_interval(self.t_min, self.t_max)

    def drift(self, x: State, t: Time) -> State:
        return 0.0 * expand_right(as_time(t, self.t_max), x) * x

    def diffusion(self, t: Time) -> Float[Array, "..."]:
        ratio = self.sigma_max / self.sigma_min
        return self.sigma_min * ratio ** as_time(t, self.t_max) * jnp.sqrt(2.0 * jnp.log(ratio))

    def alpha(self, t: Time) -> Float[Array, "..."]:
        return jnp.ones_like(as_time(t, self.t_max))

    def sigma(self, t: Time) -> Float[Array, "..."]:
        t, ratio = as_time(t, self.t_max), self.sigma_max / self.sigma_min
        # r^2t - 1 = (r^t - 1)(r^t + 1): no cancellation at small t, half the rounding of expm1(2 t log r) at large t
        return self.sigma_min * safe_sqrt(jnp.expm1(t * jnp.log(ratio)) * (ratio**t + 1.0))

    def prior_std(self) -> Scalar:
        return self.sigma(self.t_max)
