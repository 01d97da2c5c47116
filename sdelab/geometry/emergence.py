r"""The order in which features emerge: large ones first, details later.

A feature is a direction $u$ in the data, of variance $\lambda$. What a model has decided of it by the time t is the variance, from
sample to sample, of $u^T D(x_t, t)$, where $D = E[x_0 \mid x_t]$ is the denoised image. For Gaussian data it is
$$\mathrm{Var}[u^T D] = \frac{\alpha^2\lambda^2}{\alpha^2\lambda + \sigma^2},$$
the share $\alpha^2\lambda/(\alpha^2\lambda + \sigma^2)$ of what there will be, half of it where the signal-to-noise ratio is $1/\lambda$.
Wang and Vastola (2023), https://arxiv.org/abs/2303.02490.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sdelab._checks import as_time, check_nonnegative, is_concrete
from sdelab._typing import Scalar, Time
from sdelab.exact.base import as_floating
from sdelab.geometry.gaussian_flow import against
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.sde import AbstractAffineSDE


class Emergence(eqx.Module):
    """Features against time, of many samples.

    Fields: `times`, in the order of sampling, `(times,)`; `variances` of the features of the denoised states, over the
    samples, `(times, k)`.
    """

    times: Float[Array, " times"]
    variances: Float[Array, "times k"]

    @property
    def shares(self) -> Float[Array, "times k"]:
        """The variances as shares of those at the last time."""
        return self.variances / self.variances[-1:]

    def emergence_times(self, share: Scalar = 0.5) -> Float[Array, " k"]:
        """When each feature first has the given share of its last variance, linear between the times; `(k,)`.

        The first of the times, where it has it from the start.
        """
        check_share(share)
        return jax.vmap(_first_reached, (None, 1, None))(self.times, self.shares, share)


def denoised(
    process: AbstractReverseProcess, times: Float[ArrayLike, " times"], states: Float[Array, "times batch ..."]
) -> Float[Array, "times batch ..."]:
    r"""The denoised images $E[x_0 \mid x_t]$ along a trajectory, one evaluation of the score a state."""
    require_affine(process.sde, "denoised")
    times = as_time(times, process.sde.t_max)
    if states.ndim < 3 or times.shape != states.shape[:1]:
        raise ValueError(
            f"times has shape {times.shape}, states {states.shape}; accepted: (n,) and (n, batch, *event)."
        )
    return _denoise_each(process, times, states)


@eqx.filter_jit
def _denoise_each(process: AbstractReverseProcess, times: Array, states: Array) -> Array:
    return jax.lax.map(lambda pair: process.denoise(pair[1], pair[0]), (times, states))


def emergence(
    times: Float[ArrayLike, " times"],
    denoised_states: Float[Array, "times batch ..."],
    features: Float[Array, "k ..."],
) -> Emergence:
    """The variance, over the batch, of each feature of the denoised states, against time.

    `denoised_states`: `(times, batch, *event)`, as `denoised` returns them; a batch of hundreds, for an error of a few
    percent. `features`: unit vectors `(k, *event)`, such as the principal components of the data.
    Errors: shapes that do not fit, a single sample.
    """
    times = jnp.asarray(times) * 1.0
    event = denoised_states.shape[2:]
    if denoised_states.ndim < 3 or times.shape != denoised_states.shape[:1] or features.shape[1:] != event:
        raise ValueError(
            f"times, denoised_states, features have shapes {times.shape}, {denoised_states.shape}, {features.shape}; "
            "accepted: (n,), (n, batch, *event), (k, *event)."
        )
    if denoised_states.shape[1] < 2:
        raise ValueError("denoised_states hold one sample, which has no variance; accepted: a batch of at least two.")
    flat = denoised_states.reshape(*denoised_states.shape[:2], -1)
    along = jnp.einsum(
        "tbd,kd->tbk", flat, features.reshape(features.shape[0], -1), precision=jax.lax.Precision.HIGHEST
    )
    return Emergence(times, jnp.var(along, axis=1, ddof=1))


def gaussian_variances(sde: AbstractAffineSDE, variances: ArrayLike, t: Time) -> Float[Array, "..."]:
    r"""$\alpha^2\lambda^2/(\alpha^2\lambda + \sigma^2)$ for Gaussian data of variances $\lambda$; the shape of `t` and then theirs."""
    require_affine(sde, "gaussian_variances")
    check_nonnegative(variances=variances)
    values = as_floating(variances)
    t = as_time(t, sde.t_max)
    alpha, sigma = against(sde.alpha(t), values), against(sde.sigma(t), values)
    signal = alpha**2 * values.reshape((1,) * t.ndim + values.shape)
    total = signal + sigma**2
    nothing = total == 0  # no variance and no noise
    return jnp.where(nothing, 0.0, signal / jnp.where(nothing, 1.0, total)) * values.reshape(
        (1,) * t.ndim + values.shape
    )


def gaussian_emergence_times(
    sde: AbstractAffineSDE, variances: Float[ArrayLike, "..."], share: Scalar = 0.5
) -> Float[Array, "..."]:
    r"""When a feature of variance $\lambda$ of Gaussian data has the given share of it: $\alpha^2/\sigma^2 = \frac{s}{1-s}\frac1\lambda$.

    Of the shape of `variances`. `t_max` for what is there from the start, 0 for what never comes (a variance of 0).
    """
    require_affine(sde, "gaussian_emergence_times")
    check_nonnegative(variances=variances)
    check_share(share)
    values = as_floating(variances)
    share = jnp.asarray(share, values.dtype)
    level = jnp.log(share) - jnp.log1p(-share) - jnp.log(values)
    low, high = (sde.log_snr(jnp.asarray(end, values.dtype)) for end in (sde.t_max, 0.0))
    return sde.log_snr_inverse(jnp.clip(level, low, high))


def check_share(share: Scalar) -> None:
    if is_concrete(share) and not 0 < float(np.asarray(share)) < 1:
        raise ValueError(f"share = {share} is not accepted; share must be a number in (0, 1).")


def _first_reached(times: Array, shares: Array, share: Scalar) -> Array:
    reached = shares >= share  # the last one always is
    after = jnp.argmax(reached)
    before = jnp.maximum(after - 1, 0)
    step = shares[after] - shares[before]
    part = jnp.where(step > 0, (share - shares[before]) / jnp.where(step > 0, step, 1.0), 0.0)
    return times[before] + part * (times[after] - times[before])
