from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sdelab._checks import as_time, check_instance, check_nonnegative, is_concrete
from sdelab._numerics import safe_sqrt
from sdelab._typing import State, Time
from sdelab.exact.base import as_floating, flatten_event, kernel_at
from sdelab.exact.covariance import AbstractCovariance, check_density
from sdelab.exact.gaussian import Gaussian
from sdelab.reverse import check_process, require_affine
from sdelab.sde import AbstractAffineSDE

Kernel: TypeAlias = tuple[Array, Array]
"""`alpha` and `sigma` at a time."""


class GaussianFlow(eqx.Module):
    r"""The probability flow of a Gaussian $N(m, C)$ under an affine process, solved in closed form.

    Along an eigenvector of $C$ of eigenvalue $\lambda$ the deviation $x - \alpha m$ keeps its sign and scales with the
    standard deviation of the diffused Gaussian,
    $$x(t_1) = \alpha_1 m + \sum_k \sqrt{\frac{\alpha_1^2\lambda_k + \sigma_1^2}{\alpha_0^2\lambda_k + \sigma_0^2}}\;
    u_k u_k^T (x(t_0) - \alpha_0 m),$$
    from any time to any other, forwards or backwards, without a step or an evaluation of a score. Sums of squares are all
    that is computed, so nothing cancels. Wang and Vastola (2023), https://arxiv.org/abs/2303.02490, give it for
    variance-preserving processes.

    Fields: `sde`, any affine process; `gaussian`, with a full, diagonal or low-rank covariance.
    Errors: a process without a kernel; from a time where $\sigma = 0$, a singular covariance, whose flow cannot be left there.
    """

    sde: AbstractAffineSDE
    gaussian: Gaussian

    def __check_init__(self):
        check_process(self.sde)
        require_affine(self.sde, "GaussianFlow")
        check_instance(Gaussian, gaussian=self.gaussian)

    def __call__(self, x: State, t0: Time, t1: Time) -> State:
        """The state at `t1` of the flow that passes through `x` at `t0`; each a scalar or one time per sample."""
        flat, start, end = self._ends(x, t0, t1)
        mean = self.gaussian.mean.reshape((1,) * (flat.ndim - 1) + (-1,)).astype(flat.dtype)
        return (end[0] * mean + self._scaled(flat - start[0] * mean, start, end)).reshape(x.shape)

    def push(self, direction: State, t0: Time, t1: Time) -> State:
        r"""What becomes at `t1` of a perturbation along `direction` at `t0`: the flow is affine, and this is its linear part."""
        return self._scaled(*self._ends(direction, t0, t1)).reshape(direction.shape)

    def trajectory(self, x: State, times: Float[ArrayLike, " times"]) -> Float[Array, "times batch ..."]:
        """The states at `times` of the flow that passes through `x` at the first of them, as `sdelab.trajectory` has them."""
        times = as_time(times, self.sde.t_max)
        if times.ndim != 1 or times.size < 1:
            raise ValueError(f"times has shape {times.shape}; accepted: at least one time, shape (n,).")
        return jax.vmap(lambda t: self(x, times[0], t))(times)

    def gains(self, t0: Time, t1: Time) -> AbstractCovariance:
        r"""The linear part as an operator: with its eigenvectors those of $C$, its eigenvalues (`variances`) `growth`'s factors.

        Scalar times. From `t0` to the end of sampling it is the sensitivity of the sample to a perturbation at `t0`.
        """
        covariance = self.gaussian.covariance
        return covariance.map(lambda value: growth(self.sde, value, t0, t1).astype(value.dtype))

    def _ends(self, x: State, t0: Time, t1: Time) -> tuple[Array, Kernel, Kernel]:
        t0, t1 = as_time(t0, self.sde.t_max), as_time(t1, self.sde.t_max)
        self._check_departure(t0)
        flat = flatten_event(x, self.gaussian.event_shape)
        return flat, kernel_at(self.sde, t0, flat), kernel_at(self.sde, t1, flat)

    def _scaled(self, flat: Array, start: Kernel, end: Kernel) -> Array:
        covariance = self.gaussian.covariance.leading(flat.ndim - 1, flat.dtype)
        return covariance.apply(lambda value: _ratio(value, start, end), flat)

    def _check_departure(self, t0: Array) -> None:
        if is_concrete(t0, self.sde):
            with jax.ensure_compile_time_eval():
                leaves_data = bool(np.any(np.asarray(self.sde.sigma(t0)) == 0))
            if leaves_data:
                check_density(self.gaussian.covariance)


def growth(sde: AbstractAffineSDE, variances: ArrayLike, t0: Time, t1: Time) -> Float[Array, "..."]:
    r"""The factors $\sqrt{(\alpha_1^2\lambda + \sigma_1^2)/(\alpha_0^2\lambda + \sigma_0^2)}$ of eigenvalues $\lambda \ge 0$.

    By one of them a deviation along an eigenvector grows or shrinks between `t0` and `t1`. `variances` of any shape;
    the result has the shape of the times, which agree or are scalar, followed by that of `variances`.
    """
    check_nonnegative(variances=variances)
    values = as_floating(variances)
    t0, t1 = jnp.broadcast_arrays(as_time(t0, sde.t_max), as_time(t1, sde.t_max))
    start, end = ((against(sde.alpha(t), values), against(sde.sigma(t), values)) for t in (t0, t1))
    return _ratio(values.reshape((1,) * t0.ndim + values.shape), start, end)


def against(times: Float[ArrayLike, "..."], values: Array) -> Array:
    """What depends on time, with axes appended for `values`, and in their dtype."""
    array = jnp.asarray(times)
    return array.reshape(array.shape + (1,) * values.ndim).astype(values.dtype)


def _ratio(value: Array, start: Kernel, end: Kernel) -> Array:
    (alpha0, sigma0), (alpha1, sigma1) = start, end
    return safe_sqrt((alpha1**2 * value + sigma1**2) / (alpha0**2 * value + sigma0**2))
