r"""Score matching without a kernel: $\lambda(t) (\|s\|^2 + 2 \nabla\cdot s)$ at states $x_t$ of the process.

By parts, $E\|s - \nabla\log p_t\|^2 = E[\|s\|^2 + 2 \nabla\cdot s] + E\|\nabla\log p_t\|^2$: the same objective as denoising score matching
up to a constant, and it asks for states only. The divergence is exact, or estimated by random directions (sliced).
Hyvärinen (2005), theorem 1, https://jmlr.org/papers/v6/hyvarinen05a.html; Song, Garg, Shi and Ermon (2019), section 3,
https://arxiv.org/abs/1905.07088.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdelab._broadcast import event_size, sum_event
from sdelab._checks import check_instance
from sdelab._typing import PRNGKey, PRNGKeys, State
from sdelab.divergence import AbstractDivergence, ExactTrace, Hutchinson
from sdelab.losses.denoising import check_data
from sdelab.losses.error import evaluate
from sdelab.losses.forward_draw import AbstractForwardDraw, Kernel
from sdelab.losses.sample_keys import sample_keys
from sdelab.losses.time_sampling import AbstractTimeSampler
from sdelab.losses.weighting import AbstractWeighting
from sdelab.score import Score
from sdelab.sde import AbstractSDE


def implicit_score_matching(
    keys: PRNGKeys | PRNGKey,
    score: Score,
    sde: AbstractSDE,
    x0: State,
    *,
    weighting: AbstractWeighting,
    time_sampler: AbstractTimeSampler,
    forward: AbstractForwardDraw = Kernel(),
    divergence: AbstractDivergence = ExactTrace(),
    condition: Any = None,
    index: Int[Array, " batch"] | None = None,
    shared_key: PRNGKey | None = None,
) -> Float[Array, " batch"]:
    r"""Per-example losses $\frac{\lambda(t)}{d} (\|s\|^2 + 2 \nabla\cdot s)$, shape `(batch,)`; negative values are usual.

    `divergence`: the exact trace, at one tangent pass per dimension, or estimates of it, which leave the mean as it is:
    with `Hutchinson()` or `GaussianHutchinson()` this is sliced score matching with its variance reduction. `forward`:
    the kernel, or a simulated path for a process without one, whose weighting then is `DiffusionSquared`. All else as in
    `denoising_score_matching`. A sample's gradient has a variance that grows towards the data, where $\nabla\cdot s \sim d/\sigma^2$.
    """
    t, xt, key_probe, weight = _states(keys, sde, x0, time_sampler, forward, index, shared_key)
    value, estimates = _divergence(score, xt, t, condition, divergence, divergence.probes(key_probe, xt))
    loss = sum_event(value**2) + 2.0 * jnp.mean(estimates, axis=0)
    return weight * weighting(sde, t) * loss / event_size(xt.shape)


def sliced_score_matching(
    keys: PRNGKeys | PRNGKey,
    score: Score,
    sde: AbstractSDE,
    x0: State,
    *,
    weighting: AbstractWeighting,
    time_sampler: AbstractTimeSampler,
    forward: AbstractForwardDraw = Kernel(),
    directions: AbstractDivergence = Hutchinson(),
    condition: Any = None,
    index: Int[Array, " batch"] | None = None,
    shared_key: PRNGKey | None = None,
) -> Float[Array, " batch"]:
    r"""Per-example losses $\frac{\lambda(t)}{d} E_v[(v^T s)^2 + 2 v^T (\nabla s) v]$, shape `(batch,)`: sliced score matching.

    `directions`: `Hutchinson(count)` for signs, `GaussianHutchinson(count)` for normal numbers; their mean over `count` is
    taken. It projects the score too; `implicit_score_matching` with the same estimator does not, and has less variance.
    All else as there. Errors: a divergence without random directions.
    """
    check_instance(AbstractDivergence, directions=directions)
    t, xt, key_probe, weight = _states(keys, sde, x0, time_sampler, forward, index, shared_key)
    probes = directions.probes(key_probe, xt)
    if probes is None:
        raise ValueError(
            f"directions = {directions!r} is not accepted: it draws none; accepted: Hutchinson() or GaussianHutchinson()."
        )
    value, estimates = _divergence(score, xt, t, condition, directions, probes)
    projections = jax.vmap(lambda probe: sum_event(probe * value))(probes)
    loss = jnp.mean(projections**2 + 2.0 * estimates, axis=0)
    return weight * weighting(sde, t) * loss / event_size(xt.shape)


def _states(
    keys: PRNGKeys | PRNGKey,
    sde: AbstractSDE,
    x0: State,
    time_sampler: AbstractTimeSampler,
    forward: AbstractForwardDraw,
    index: Int[Array, " batch"] | None,
    shared_key: PRNGKey | None,
) -> tuple[Float[Array, " batch"], State, PRNGKeys, Float[Array, " batch"]]:
    """Times, states at them, the keys of the probes, and the times' weights."""
    check_instance(AbstractForwardDraw, forward=forward)
    x0 = check_data(x0)
    keys, index, shared_key = sample_keys(keys, x0.shape[0], index, shared_key)
    key_time, key_path, key_probe = jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(keys)
    t, weight = time_sampler.draw(key_time, sde, index=index, shared_key=shared_key)
    t = t.astype(x0.dtype)
    return t, forward(key_path, sde, x0, t), key_probe, weight.astype(x0.dtype)


def _divergence(
    score: Score,
    xt: State,
    t: Float[Array, " batch"],
    condition: Any,
    divergence: AbstractDivergence,
    probes: State | None,
) -> tuple[State, Float[Array, "estimates batch"]]:
    return divergence(lambda x: evaluate(score, x, t, condition), xt, probes)
