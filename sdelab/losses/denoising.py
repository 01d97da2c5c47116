r"""Denoising score matching: $\lambda(t) \|s(x_t, t) - \nabla\log p(x_t \mid x_0)\|^2$ with $x_t = \alpha x_0 + \sigma\epsilon$.

Since $\nabla\log p(x_t \mid x_0) = -\epsilon/\sigma$, it is $\frac{\lambda}{\sigma^2} \|\epsilon_\theta - \epsilon\|^2$ with the
predicted noise $\epsilon_\theta = -\sigma s$. A score that has a `noise` of its own gives it directly: nothing is divided
and multiplied again by $\sigma$. Vincent (2011), https://doi.org/10.1162/NECO_a_00142;
Song et al. (2021), eq. 7, https://arxiv.org/abs/2011.13456.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdelab._broadcast import event_size, expand_right, sum_event
from sdelab._checks import check_instance
from sdelab._typing import PRNGKey, PRNGKeys, State, Time
from sdelab.losses.error import AbstractError, NoiseError, weighted_square
from sdelab.losses.sample_keys import normal_of, sample_keys
from sdelab.losses.time_sampling import AbstractTimeSampler
from sdelab.losses.uncertainty import with_uncertainty
from sdelab.losses.weighting import AbstractWeighting
from sdelab.reverse import require_affine
from sdelab.score import Score
from sdelab.sde import AbstractAffineSDE


def denoising_score_matching(
    keys: PRNGKeys | PRNGKey,
    score: Score,
    sde: AbstractAffineSDE,
    x0: State,
    *,
    weighting: AbstractWeighting,
    time_sampler: AbstractTimeSampler,
    error: AbstractError = NoiseError(),
    log_variance: Callable[[Time], Float[Array, " batch"]] | None = None,
    condition: Any = None,
    index: Int[Array, " batch"] | None = None,
    shared_key: PRNGKey | None = None,
) -> Float[Array, " batch"]:
    r"""Per-example losses, shape `(batch,)`. The mean is the caller's: masks and weights stay possible.

    `keys`: one key per sample, from which its time and its noise are drawn, so that a sample has the same loss in
    any batch; a single key is folded with the samples' positions. `x0`: clean data `(batch, *event)`. Dropout is on
    if the score was given keys (`score.with_keys(keys)`). `index`, each sample's global index in the batch, and
    `shared_key`, the same for all samples, are for samplers whose times depend on one another (`Stratified`,
    `Antithetic`); a single key in `keys` is both. What a loss is: see `denoising_loss`; a time that comes from a
    proposal is weighted. `log_variance`, a function of the times, makes it $L e^{-u} + u$ (`losses.uncertainty`).
    Errors: a number of keys that is not the batch's.
    """
    x0 = check_data(x0)
    keys, index, shared_key = sample_keys(keys, x0.shape[0], index, shared_key)
    key_time, key_noise = jax.vmap(jax.random.split, out_axes=1)(keys)
    t, weight = time_sampler.draw(key_time, sde, index=index, shared_key=shared_key)
    eps = normal_of(key_noise, x0)
    t = t.astype(x0.dtype)
    loss = denoising_loss(score, sde, x0, t, eps, weighting=weighting, error=error, condition=condition)
    if log_variance is not None:
        loss = with_uncertainty(loss, log_variance(t).astype(loss.dtype))
    return weight.astype(loss.dtype) * loss


def denoising_loss(
    score: Score,
    sde: AbstractAffineSDE,
    x0: State,
    t: Time,
    eps: State,
    *,
    weighting: AbstractWeighting,
    error: AbstractError = NoiseError(),
    condition: Any = None,
) -> Float[Array, " batch"]:
    r"""Per-example losses at given times `t`, a scalar or `(batch,)`, and given noise `eps`, of the shape of `x0`.

    $\frac{\lambda(t)}{\sigma(t)^2 d} \|\epsilon_\theta - \epsilon\|^2$, the mean over the $d$ dimensions of a sample. The
    published "sum" form, $\tfrac12 \lambda \|s + \epsilon/\sigma\|^2$, is $d/2$ times that. With `error=DataError()` the same loss
    is computed as $\frac{\lambda \alpha^2}{\sigma^4 d} \|D - x_0\|^2$: other digits are lost.
    """
    require_affine(sde, "denoising_loss")
    check_instance(AbstractWeighting, weighting=weighting)
    check_instance(AbstractError, error=error)
    if not jnp.issubdtype(x0.dtype, jnp.floating) or eps.shape != x0.shape:
        raise ValueError(
            f"x0 has dtype {x0.dtype} and shape {x0.shape}, eps shape {eps.shape}; accepted: floating-point data, and "
            "noise of their shape."
        )
    mean, std = sde.marginal(x0, t)
    xt = mean + expand_right(std, x0) * eps
    difference = error(score, sde, xt, t, x0, eps, condition)
    return sum_event(weighted_square(difference, error.weight(weighting, sde, t))) / event_size(x0.shape)


def check_data(x0: Any) -> State:
    x0 = jnp.asarray(x0)
    if not jnp.issubdtype(x0.dtype, jnp.floating):
        raise ValueError(f"x0 has dtype {x0.dtype}; accepted: floating-point data, scaled by the data set's `encode`.")
    return x0
