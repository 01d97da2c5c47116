import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._broadcast import expand_right
from sdelab._checks import as_time, check_increasing, check_interval, check_positive, concrete_time
from sdelab._typing import Scalar, State, Time
from sdelab.sde.base import AbstractAffineSDE


class VE(AbstractAffineSDE):
    r"""Variance-exploding SDE as published: $dx = \sigma(t) \sqrt{2 \log r}\,dw$, $\sigma(t) = \sigma_{min} r^t$.

    With $r = \sigma_{max}/\sigma_{min}$ on $[0, 1]$, $\alpha = 1$ and the kernel $N(x_0, \sigma(t)^2 I)$: at t = 0 the data
    already carry noise of size $\sigma_{min}$. `VEExact` has the SDE's own transition kernel.
    The prior is $N(0, \sigma(t_{max})^2 I)$. Song et al. (2021), eq. 9 and appendix C, https://arxiv.org/abs/2011.13456.

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
        return self.sigma(t) * jnp.sqrt(2.0 * jnp.log(self.sigma_max / self.sigma_min))

    def alpha(self, t: Time) -> Float[Array, "..."]:
        return jnp.ones_like(as_time(t, self.t_max))

    def sigma(self, t: Time) -> Float[Array, "..."]:
        # The power loses one digit in float32 where exp(t log r) loses eight times as much.
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** as_time(t, self.t_max)

    def prior_std(self) -> Scalar:
        return self.sigma(self.t_max)
