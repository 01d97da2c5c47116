from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._broadcast import expand_right
from sdelab._callable import as_pytree_callable
from sdelab._checks import as_time, check_interval, check_positive, concrete_time, is_concrete
from sdelab._numerics import safe_sqrt
from sdelab._typing import Scalar, State, Time
from sdelab.sde.base import AbstractAffineSDE

Schedule = Callable[[Float[Array, "..."]], Float[Array, "..."]]


class FromSchedule(AbstractAffineSDE):
    r"""The affine SDE with a given kernel $N(\alpha(t) x_0, \sigma(t)^2 I)$; drift and diffusion by autodiff.

    $f(x, t) = \frac{\dot\alpha}{\alpha} x$ and $g^2 = 2\sigma\dot\sigma - 2\frac{\dot\alpha}{\alpha}\sigma^2$; the prior is
    $N(0, \sigma(t_{max})^2 I)$. Karras et al. (2022), eq. 4 and appendix B, https://arxiv.org/abs/2206.00364.

    Fields: `alpha_schedule`, `sigma_schedule`, elementwise functions of t built from `jax.numpy`, with alpha > 0,
    sigma > 0 on (0, t_max] and log(alpha/sigma) decreasing (g is NaN where it increases). Both must be differentiable
    where drift and diffusion are evaluated. Digits that a schedule loses near t = 0 are lost here too:
    use `expm1` and `log1p`. Pass an `equinox.Module` to have parameters that are differentiated.
    """

    alpha_schedule: Schedule = eqx.field(converter=as_pytree_callable)
    sigma_schedule: Schedule = eqx.field(converter=as_pytree_callable)
    t_min: float = eqx.field(default=1e-3, static=True, converter=concrete_time)
    t_max: float = eqx.field(default=1.0, static=True, converter=concrete_time)

    def __init__(self, alpha: Schedule, sigma: Schedule, *, t_min: float = 1e-3, t_max: float = 1.0):
        self.alpha_schedule, self.sigma_schedule = alpha, sigma
        self.t_min, self.t_max = t_min, t_max

    def __check_init__(self):
        check_interval(self.t_min, self.t_max)
        if is_concrete(self):
            check_positive(alpha_at_t_max=self.alpha(self.t_max), sigma_at_t_max=self.sigma(self.t_max))

    def drift(self, x: State, t: Time) -> State:
        return expand_right(self._drift_rate(as_time(t, self.t_max)), x) * x

    def diffusion(self, t: Time) -> Float[Array, "..."]:
        t = as_time(t, self.t_max)
        sigma, sigma_rate = _value_and_rate(self.sigma_schedule, t)
        return safe_sqrt(2.0 * sigma * sigma_rate - 2.0 * self._drift_rate(t) * sigma**2)

    def alpha(self, t: Time) -> Float[Array, "..."]:
        return _full(self.alpha_schedule)(as_time(t, self.t_max))

    def sigma(self, t: Time) -> Float[Array, "..."]:
        return _full(self.sigma_schedule)(as_time(t, self.t_max))

    def prior_std(self) -> Scalar:
        return self.sigma(self.t_max)

    def _drift_rate(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        alpha, rate = _value_and_rate(self.alpha_schedule, t)
        return rate / alpha


def _value_and_rate(schedule: Schedule, t: Float[Array, "..."]) -> tuple[Array, Array]:
    return jax.jvp(_full(schedule), (t,), (jnp.ones_like(t),))


def _full(schedule: Schedule) -> Schedule:
    """The schedule with values of the shape of t, also where it is a constant."""
    return lambda t: schedule(t) + 0.0 * t
