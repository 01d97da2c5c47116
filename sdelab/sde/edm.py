import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._broadcast import expand_right
from sdelab._checks import as_time, check_interval, concrete_time
from sdelab._numerics import safe_sqrt
from sdelab._typing import Scalar, State, Time
from sdelab.sde.base import AbstractAffineSDE


class EDM(AbstractAffineSDE):
    r"""The process of EDM, time is the noise level: $dx = \sqrt{2t}\,dw$, $\alpha = 1$, $\sigma(t) = t$.

    The prior is $N(0, t_{max}^2 I)$. Karras et al. (2022), eq. 1 and table 1 with $\sigma(t) = t$, $s(t) = 1$,
    https://arxiv.org/abs/2206.00364.

    Fields: `t_min` and `t_max` are the paper's $\sigma_{min}$ and $\sigma_{max}$, in units of the data.
    """

    t_min: float = eqx.field(default=0.002, static=True, converter=concrete_time)
    t_max: float = eqx.field(default=80.0, static=True, converter=concrete_time)

    def __check_init__(self):
        check_interval(self.t_min, self.t_max)

    def drift(self, x: State, t: Time) -> State:
        return 0.0 * expand_right(as_time(t, self.t_max), x) * x

    def diffusion(self, t: Time) -> Float[Array, "..."]:
        return safe_sqrt(2.0 * as_time(t, self.t_max))

    def alpha(self, t: Time) -> Float[Array, "..."]:
        return jnp.ones_like(as_time(t, self.t_max))

    def sigma(self, t: Time) -> Float[Array, "..."]:
        return as_time(t, self.t_max)

    def prior_std(self) -> Scalar:
        return self.t_max
