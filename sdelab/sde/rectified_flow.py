import equinox as eqx
from jaxtyping import Array, Float

from sdelab._broadcast import expand_right
from sdelab._checks import as_time, check_below, check_interval, concrete_time
from sdelab._numerics import safe_sqrt
from sdelab._typing import Scalar, State, Time
from sdelab.sde.base import AbstractAffineSDE


class RectifiedFlow(AbstractAffineSDE):
    r"""The straight interpolation $x_t = (1 - t) x_0 + t \epsilon$ as an SDE, $dx = -\frac{x}{1-t}\,dt + \sqrt{\frac{2t}{1-t}}\,dw$.

    From $\alpha = 1 - t$ and $\sigma = t$: $f = \dot\alpha/\alpha$ and $g^2 = d\sigma^2/dt - 2 f \sigma^2 = 2t + 2t^2/(1-t)$.
    Its probability flow has the velocity $E[\epsilon - x_0 \mid x_t]$ of flow matching. The drift is infinite at
    t = 1, so `t_max` < 1, and the prior is $N(0, t_{max}^2 I)$.
    Liu et al. (2022), eq. 1, https://arxiv.org/abs/2209.03003; Lipman et al. (2022), https://arxiv.org/abs/2210.02747.
    """

    t_min: float = eqx.field(default=1e-3, static=True, converter=concrete_time)
    t_max: float = eqx.field(default=1.0 - 1e-3, static=True, converter=concrete_time)

    def __check_init__(self):
        check_interval(self.t_min, self.t_max)
        check_below(1.0, t_max=self.t_max)

    def drift(self, x: State, t: Time) -> State:
        return -x / expand_right(self.alpha(t), x)

    def diffusion(self, t: Time) -> Float[Array, "..."]:
        return safe_sqrt(2.0 * self.sigma(t) / self.alpha(t))

    def alpha(self, t: Time) -> Float[Array, "..."]:
        return 1.0 - as_time(t, self.t_max)

    def sigma(self, t: Time) -> Float[Array, "..."]:
        return as_time(t, self.t_max)

    def prior_std(self) -> Scalar:
        return self.t_max
