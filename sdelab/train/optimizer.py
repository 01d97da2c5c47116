"""Adam as the published score models train with it: linear warm-up from zero, EDM2's decay, and a bound on the gradient's norm."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float

from sdelab._checks import check_nonnegative, check_positive


def linear_warmup(learning_rate: float, warmup_steps: int) -> optax.Schedule:
    r"""$\eta_k = \eta \min(k / w, 1)$ for update k = 0, 1, 2, ...: the first learning rate is 0, as published.

    Song et al. (2021), appendix H, https://arxiv.org/abs/2011.13456. `warmup_steps` = 0 is the constant rate.
    Errors: `learning_rate` <= 0, `warmup_steps` < 0.
    """
    check_positive(learning_rate=learning_rate)
    check_nonnegative(warmup_steps=warmup_steps)

    def schedule(count: ArrayLike) -> Float[Array, ""]:
        fraction = jnp.asarray(count, jnp.float32) / warmup_steps if warmup_steps else jnp.ones(())
        return learning_rate * jnp.minimum(fraction, 1.0)

    return schedule


def inverse_sqrt_decay(schedule: optax.Schedule, decay_after: int) -> optax.Schedule:
    r"""$\eta_k / \sqrt{\max(k / k_{ref}, 1)}$ of the rate $\eta_k$ of `schedule`, with $k_{ref}$ = `decay_after` > 0.

    Under forced weight normalisation nothing else makes the steps smaller. Karras et al. (2024),
    https://arxiv.org/abs/2312.02696, `learning_rate_schedule` of https://github.com/NVlabs/edm2, where 70 000 batches of 2 048 images
    are published for ImageNet-512, and 35 000 for ImageNet-64. Errors: `decay_after` <= 0.
    """
    check_positive(decay_after=decay_after)

    def decayed(count: ArrayLike) -> Float[Array, ""]:
        share = jnp.asarray(count, jnp.float32) / decay_after
        return jnp.asarray(schedule(count)) * jax.lax.rsqrt(jnp.maximum(share, 1.0))

    return decayed


def adam(
    learning_rate: optax.Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    clip: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980) after `clip`, a transformation of the gradients.

    `clip=None` is `optax.clip_by_global_norm(1.0)`; `optax.identity()` leaves the gradients as they are.
    """
    clip = optax.clip_by_global_norm(1.0) if clip is None else clip
    return optax.chain(clip, optax.adam(learning_rate, b1=b1, b2=b2, eps=eps))


def clip_by_regularised_norm(max_norm: float, eps: float = 1e-6) -> optax.GradientTransformation:
    r"""Multiplies the gradients by $\min(1, c / (\lVert g \rVert + \epsilon))$, as `torch.nn.utils.clip_grad_norm_` does.

    `optax.clip_by_global_norm` has $\epsilon = 0$. Errors: `max_norm` <= 0.
    """
    check_positive(max_norm=max_norm)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + eps))
        return jax.tree.map(lambda g: factor.astype(g.dtype) * g, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
