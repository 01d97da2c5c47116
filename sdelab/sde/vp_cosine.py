import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._broadcast import expand_right
from sdelab._checks import as_time, check_below, check_interval, check_positive, concrete_time
from sdelab._numerics import safe_sqrt
from sdelab._typing import Scalar, State, Time
from sdelab.sde.base import AbstractAffineSDE


class VPCosine(AbstractAffineSDE):
    r"""Variance-preserving SDE with the cosine schedule, $\alpha(t) = \cos(a + bt)/\cos a$.

    With $a = \pi s/(2(1 + s))$ and $b = \pi/(2(1 + s))$, $a + b = \pi/2$, hence $\alpha = \sin(b(1 - t))/\cos a$,
    $\sigma^2 = \sin(bt) \sin(2a + bt)/\cos^2 a$ and $\beta = -2\,d\log\alpha/dt = 2b \cot(b(1 - t))$;
    $dx = -\tfrac12 \beta x\,dt + \sqrt\beta\,dw$. The rate is infinite at t = 1, so `t_max` < 1; the default is where the
    published discrete process (1 000 steps, rates cut at 0.999) ends. The prior is $N(0, \sigma(t_{max})^2 I)$.
    Nichol and Dhariwal (2021), eq. 17, https://arxiv.org/abs/2102.09672.

    Fields: `s` > 0, the offset that keeps the noise from vanishing near t = 0.
    """

    s: Scalar = 0.008
    t_min: float = eqx.field(default=1e-3, static=True, converter=concrete_time)
    t_max: float = eqx.field(default=0.9946, static=True, converter=concrete_time)

    def __check_init__(self):
        check_positive(s=self.s)
        check_interval(self.t_min, self.t_max)
        check_below(1.0, t_max=self.t_max)

    def beta(self, t: Time) -> Float[Array, "..."]:
        _, b = self._angles()
        return 2.0 * b / jnp.tan(b * (1.0 - as_time(t, self.t_max)))

    def drift(self, x: State, t: Time) -> State:
        return -0.5 * expand_right(self.beta(t), x) * x

    def diffusion(self, t: Time) -> Float[Array, "..."]:
        return safe_sqrt(self.beta(t))

    def alpha(self, t: Time) -> Float[Array, "..."]:
        a, b = self._angles()
        return jnp.sin(b * (1.0 - as_time(t, self.t_max))) / jnp.cos(a)

    def sigma(self, t: Time) -> Float[Array, "..."]:
        a, b = self._angles()
        t = as_time(t, self.t_max)
        # sqrt(1 - alpha^2) is off by 100 % at t = 1e-6
        return safe_sqrt(jnp.sin(b * t) * jnp.sin(2.0 * a + b * t)) / jnp.cos(a)

    def prior_std(self) -> Scalar:
        return self.sigma(self.t_max)

    def _angles(self) -> tuple[Scalar, Scalar]:
        return 0.5 * jnp.pi * self.s / (1.0 + self.s), 0.5 * jnp.pi / (1.0 + self.s)
