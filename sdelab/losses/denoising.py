r"""Denoising score matching: $\lambda(t) \|s(x_t, t) - \nabla\log p(x_t \mid x_0)\|^2$ with $x_t = \alpha x_0 + \sigma\epsilon$.

Since $\nabla\log p(x_t \mid x_0) = -\epsilon/\sigma$, it is $\frac{\lambda}{\sigma^2} \|\epsilon_\theta - \epsilon\|^2$ with the
predicted noise $\epsilon_\theta = -\sigma s$. A score that has a `noise` of its own gives it directly: nothing is divided
and multiplied again by $\sigma$. Vincent (2011), eq. 11, https://doi.org/10.1162/NECO_a_00142;
Song et al. (2021), eq. 7, https://arxiv.org/abs/2011.13456.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._broadcast import event_size, expand_right, sum_event
from sdelab._checks import check_instance
from sdelab._typing import PRNGKey, PRNGKeys, State, Time
from sdelab.losses.time_sampling import AbstractTimeSampler
from sdelab.losses.weighting import AbstractWeighting
from sdelab.reverse import require_affine
from sdelab.score import AbstractScore, Score
from sdelab.sde import AbstractAffineSDE


def denoising_score_matching(
    keys: PRNGKeys | PRNGKey,
    score: Score,
    sde: AbstractAffineSDE,
    x0: State,
    *,
    weighting: AbstractWeighting,
    time_sampler: AbstractTimeSampler,
    condition: Any = None,
) -> Float[Array, " batch"]:
    """Per-example losses, shape `(batch,)`. The mean is the caller's: masks and weights stay possible.

    `keys`: one key per sample, from which its time and its noise are drawn, so that a sample has the same loss in
    any batch; a single key is folded with the samples' positions. `x0`: clean data `(batch, *event)`. Dropout is on
    if the score was given keys (`score.with_keys(keys)`). What a loss is: see `denoising_loss`.
    Errors: a number of keys that is not the batch's.
    """
    keys, x0 = sample_keys(keys, x0.shape[0]), jnp.asarray(x0)
    if not jnp.issubdtype(x0.dtype, jnp.floating):
        raise ValueError(f"x0 has dtype {x0.dtype}; accepted: floating-point data, scaled by the data set's `encode`.")
    key_time, key_noise = jax.vmap(jax.random.split, out_axes=1)(keys)
    t = time_sampler(key_time, sde).astype(x0.dtype)
    eps = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:], x0.dtype))(key_noise)
    return denoising_loss(score, sde, x0, t, eps, weighting=weighting, condition=condition)


def denoising_loss(
    score: Score,
    sde: AbstractAffineSDE,
    x0: State,
    t: Time,
    eps: State,
    *,
    weighting: AbstractWeighting,
    condition: Any = None,
) -> Float[Array, " batch"]:
    r"""Per-example losses at given times `t`, a scalar or `(batch,)`, and given noise `eps`, of the shape of `x0`.

    $\frac{\lambda(t)}{\sigma(t)^2 d} \|\epsilon_\theta - \epsilon\|^2$, the mean over the $d$ dimensions of a sample. The
    published "sum" form, $\tfrac12 \lambda \|s + \epsilon/\sigma\|^2$, is $d/2$ times that.
    """
    require_affine(sde, "denoising_loss")
    check_instance(AbstractWeighting, weighting=weighting)
    if not jnp.issubdtype(x0.dtype, jnp.floating) or eps.shape != x0.shape:
        raise ValueError(
            f"x0 has dtype {x0.dtype} and shape {x0.shape}, eps shape {eps.shape}; accepted: floating-point data, and "
            "noise of their shape."
        )
    mean, std = sde.marginal(x0, t)
    xt = mean + expand_right(std, x0) * eps
    error = predicted_noise(score, sde, xt, t, condition) - eps
    weight = expand_right(weighting.noise_weight(sde, t), error)
    return sum_event(weight * error**2) / event_size(x0.shape)


def predicted_noise(score: Score, sde: AbstractAffineSDE, xt: State, t: Time, condition: Any = None) -> State:
    r"""$\epsilon_\theta = -\sigma s$, taken from the score's own `noise` where it has one."""
    if isinstance(score, AbstractScore):
        return score.noise(xt, t, condition)
    value = score(xt, t) if condition is None else score(xt, t, condition)
    if value.shape != xt.shape:
        raise ValueError(f"the score of x of shape {xt.shape} has shape {value.shape}; accepted: the shape of x.")
    return sde.noise_from_score(value, t)


def sample_keys(keys: PRNGKeys | PRNGKey, batch: int) -> PRNGKeys:
    """One key per sample: the keys themselves, or a single key folded with each sample's position."""
    if keys.ndim == 0:
        return jax.vmap(lambda i: jax.random.fold_in(keys, i))(jnp.arange(batch))
    if keys.shape != (batch,):
        raise ValueError(f"keys has shape {keys.shape}; accepted: one key, or one per sample, shape ({batch},).")
    return keys
