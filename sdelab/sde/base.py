r"""Forward processes.

Notation: `x` is a state of shape `(batch, *event)`, `t` a scalar or one time per sample. Time grows with noise,
from data at `t = 0` to the prior at `t_max`; `[t_min, t_max]` is the interval on which one samples by default.

1. The process: $dx = f(x, t)\,dt + g(t)\,dw$.
2. An *affine* process has a drift linear in $x$, hence the kernel $p(x_t \mid x_0) = N(\alpha(t) x_0, \sigma(t)^2 I)$.
3. Signal-to-noise: $\mathrm{log\_snr} = \log(\alpha^2/\sigma^2)$, decreasing in $t$.
4. Tweedie: $E[x_0 \mid x_t] = (x_t + \sigma^2 \nabla\log p_t(x_t))/\alpha$, and $E[\epsilon \mid x_t] = -\sigma\nabla\log p_t$.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab._broadcast import event_size, expand_right, sum_event
from sdelab._checks import as_time, is_concrete
from sdelab._typing import PRNGKey, Scalar, State, Time


class AbstractSDE(eqx.Module):
    r"""A forward process $dx = f(x, t)\,dt + g(t)\,dw$ with state-independent, isotropic noise, and its prior.

    Numbers are leaves: a process can be differentiated by its fields and mapped over them. `t_min` and `t_max`
    are structure, because time grids are built from them.
    Song et al. (2021), eq. 5, https://arxiv.org/abs/2011.13456.
    """

    t_min: AbstractVar[float]
    t_max: AbstractVar[float]

    @abc.abstractmethod
    def drift(self, x: State, t: Time) -> State:
        """Forward drift $f(x, t)$, of the shape of `x`; `t` in `[0, t_max]`."""

    @abc.abstractmethod
    def diffusion(self, t: Time) -> Float[Array, "..."]:
        """Forward diffusion $g(t) >= 0$, of the shape of `t`."""

    @abc.abstractmethod
    def prior_sample(self, key: PRNGKey, shape: tuple[int, ...], dtype: DTypeLike | None = None) -> State:
        """Draws from the prior at `t_max`, an array of shape `shape = (batch, *event)`."""

    @abc.abstractmethod
    def prior_log_prob(self, x: State) -> Float[Array, " batch"]:
        """Log-density of the prior at `t_max` in nats, one number per sample."""


class AbstractAffineSDE(AbstractSDE):
    r"""A process whose kernel is $p(x_t \mid x_0) = N(\alpha(t) x_0, \sigma(t)^2 I)$.

    An author defines `drift`, `diffusion`, `alpha`, `sigma` and `prior_std`; everything else follows from them, solvers that take
    the drift to be its value at x = 1 times x included. A drift with other terms belongs in an `AbstractSDE`.
    `sdelab.testing.check_sde` says whether they belong together.
    """

    @abc.abstractmethod
    def alpha(self, t: Time) -> Float[Array, "..."]:
        r"""Scale $\alpha(t)$ of the kernel's mean, of the shape of `t`; `t` in `[0, t_max]`."""

    @abc.abstractmethod
    def sigma(self, t: Time) -> Float[Array, "..."]:
        r"""Standard deviation $\sigma(t)$ of the kernel, of the shape of `t`; `t` in `[0, t_max]`."""

    @abc.abstractmethod
    def prior_std(self) -> Scalar:
        r"""Standard deviation of the prior $N(0, \mathrm{prior\_std}^2 I)$."""

    def prior_sample(self, key: PRNGKey, shape: tuple[int, ...], dtype: DTypeLike | None = None) -> State:
        z = jax.random.normal(key, shape, dtype if dtype is not None else jnp.result_type(float))
        return jnp.asarray(self.prior_std(), z.dtype) * z

    def prior_log_prob(self, x: State) -> Float[Array, " batch"]:
        std = jnp.asarray(self.prior_std(), x.dtype)
        normalisation = event_size(x.shape) * (0.5 * jnp.log(2 * jnp.pi) + jnp.log(std))
        return -0.5 * sum_event((x / std) ** 2) - normalisation.astype(x.dtype)

    def marginal(self, x0: State, t: Time) -> tuple[State, Float[Array, "..."]]:
        r"""Mean $\alpha(t) x_0$, of the shape of `x0`, and standard deviation $\sigma(t)$, of the shape of `t`."""
        t = as_time(t, self.t_max)
        return expand_right(self.alpha(t), x0) * x0, self.sigma(t)

    def perturb(self, key: PRNGKey, x0: State, t: Time) -> tuple[State, State]:
        r"""Draws $x_t = \alpha(t) x_0 + \sigma(t) \epsilon$; returns $(x_t, \epsilon)$, both of the shape of `x0`."""
        mean, std = self.marginal(x0, t)
        eps = jax.random.normal(key, x0.shape, x0.dtype)
        return mean + expand_right(std, x0) * eps, eps

    def log_snr(self, t: Time) -> Float[Array, "..."]:
        r"""$\log(\alpha^2/\sigma^2)$, of the shape of `t`; `inf` where $\sigma = 0$."""
        t = as_time(t, self.t_max)
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def log_snr_inverse(self, log_snr: Float[Array, "..."] | float) -> Float[Array, "..."]:
        r"""The time at which the process has the given log-SNR, of its shape: the inverse of `log_snr`.

        By bisection to the last digit. It is differentiable once, in its argument and in the fields of the process.
        Errors: a log-SNR that the process never has.
        """
        target = jnp.asarray(log_snr, jnp.result_type(log_snr, float))
        _check_log_snr(target, self)
        frozen = jax.lax.stop_gradient(self)
        t = _bisect(lambda t: frozen.log_snr(t), jax.lax.stop_gradient(target), self.t_max)
        # One Newton step with a frozen slope: it moves t by rounding only, and carries the implicit derivative.
        value, slope = jax.jvp(frozen.log_snr, (t,), (jnp.ones_like(t),))
        usable = jnp.isfinite(slope) & (slope < 0) & jnp.isfinite(value)
        correction = jnp.where(usable, (target - self.log_snr(t)) / jnp.where(usable, slope, 1.0), 0.0)
        return t + correction - jax.lax.stop_gradient(correction)

    def denoise(self, x: State, t: Time, score: State) -> State:
        r"""Tweedie's $E[x_0 \mid x_t] = (x_t + \sigma^2 s)/\alpha$ from the score at $x_t$."""
        return (x + expand_right(self.sigma(t), x) ** 2 * score) / expand_right(self.alpha(t), x)

    def noise_from_score(self, score: State, t: Time) -> State:
        r"""$E[\epsilon \mid x_t] = -\sigma s$."""
        return -expand_right(self.sigma(t), score) * score

    def score_from_noise(self, noise: State, t: Time) -> State:
        r"""$s = -\epsilon/\sigma$; `t` > 0 wherever $\sigma(0) = 0$."""
        return -noise / expand_right(self.sigma(t), noise)

    def score_from_denoised(self, x: State, denoised: State, t: Time) -> State:
        r"""$s = (\alpha x_0 - x_t)/\sigma^2$; `t` > 0 wherever $\sigma(0) = 0$."""
        return (expand_right(self.alpha(t), x) * denoised - x) / expand_right(self.sigma(t), x) ** 2

    def score_from_velocity(self, x: State, velocity: State, t: Time) -> State:
        r"""The score from $v = \alpha\epsilon - \sigma x_0$ (Salimans and Ho, 2022, https://arxiv.org/abs/2202.00512).

        With $x_t = \alpha x_0 + \sigma\epsilon$: $\epsilon = (\sigma x_t + \alpha v)/(\alpha^2 + \sigma^2)$, $s = -\epsilon/\sigma$.
        """
        alpha, sigma = expand_right(self.alpha(t), x), expand_right(self.sigma(t), x)
        return -(x + alpha / sigma * velocity) / (alpha**2 + sigma**2)


def _check_log_snr(target: Array, sde: AbstractAffineSDE) -> None:
    if not is_concrete(target, sde):
        return
    low, high = sde.log_snr(jnp.asarray(sde.t_max, target.dtype)), sde.log_snr(jnp.zeros((), target.dtype))
    slack = 1e-5 * (1 + jnp.abs(low))
    if not bool(jnp.all((target >= low - slack) & (target <= high + 1e-5 * (1 + jnp.abs(high))))):
        raise ValueError(
            f"log_snr = {target} is not reached by the process; accepted: values in [{float(low)}, {float(high)}]."
        )


def _bisect(decreasing, target: Array, t_max: float) -> Array:
    """Solves `decreasing(t) = target` on `[0, t_max]`; enough halvings for the last digit of t near 0."""
    steps = 64 if target.dtype == jnp.float32 else 128
    low, high = jnp.zeros_like(target), jnp.full_like(target, t_max)

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        above = decreasing(middle) > target
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
    return jnp.where(decreasing(low) <= target, low, high)
