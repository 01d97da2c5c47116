import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from sdelab._checks import as_time
from sdelab.reverse import require_affine
from sdelab.sde import AbstractAffineSDE


class RotationPlane(eqx.Module):
    r"""Trajectories against the plane of their first and last state, $x_t = c_T x_T + c_0 x_0 + r_t$ with $r_t$ across it.

    Fields: `coefficients` $(c_T, c_0)$, `(times, batch, 2)`; `residual` $\|r_t\|/\|x_t\|$, `(times, batch)`.
    """

    coefficients: Float[Array, "times batch 2"]
    residual: Float[Array, "times batch"]


def rotation_plane(states: Float[Array, "times batch ..."]) -> RotationPlane:
    r"""How a trajectory lies to the plane through $x_T$ and $x_0$, the first and the last of its states.

    Sampling with a variance-preserving process turns $x_T$ into $x_0$: $c_T$ falls from 1 to 0 as a sine does, $c_0$ rises from
    0 to 1 as a cosine, and little lies outside of the plane. `rotation_coefficients` are those of data at a point. Wang
    and Vastola (2023), https://arxiv.org/abs/2303.02490.

    `states` are `(times, batch, *event)`, as `sdelab.trajectory` returns them; each trajectory has its own plane. Where the
    two states are parallel the plane is a line, and the smallest coefficients are taken.
    Errors: fewer than two times, events of one dimension.
    """
    if states.ndim < 3 or states.shape[0] < 2 or states[0, 0].size < 2:
        raise ValueError(
            f"states have shape {states.shape}; accepted: (times, batch, *event), two times and two dimensions at least."
        )
    coefficients, residual = jax.vmap(_against_plane, 1, 1)(states.reshape(*states.shape[:2], -1))
    return RotationPlane(coefficients, residual)


def _against_plane(states: Float[Array, "times d"]) -> tuple[Float[Array, "times 2"], Float[Array, " times"]]:
    ends = jnp.stack([states[0], states[-1]], axis=1)
    lengths = _nonzero(jnp.linalg.norm(ends, axis=0))
    units = ends / lengths[None]  # a large x_T and a small x_0 are equally good directions
    inverse = jnp.linalg.pinv(units, rtol=10 * float(jnp.finfo(states.dtype).eps))
    exact = jax.lax.Precision.HIGHEST
    inside = jnp.matmul(states, inverse.T, precision=exact)
    rest = states - jnp.matmul(inside, units.T, precision=exact)
    return inside / lengths[None], jnp.linalg.norm(rest, axis=1) / _nonzero(jnp.linalg.norm(states, axis=1))


def rotation_coefficients(sde: AbstractAffineSDE, times: Float[ArrayLike, " times"]) -> Float[Array, "times 2"]:
    r"""The coefficients $(c_T, c_0)$ of data at one point, whose trajectories $\alpha_t m + \sigma_t\epsilon$ never leave the plane.

    $\alpha_t = c_T \alpha_T + c_0 \alpha_e$ and $\sigma_t = c_T \sigma_T + c_0 \sigma_e$, with T and e the first and the last of
    `times`. For a variance-preserving process to $t_e = 0$ they are nearly $\sigma_t$ and $\alpha_t$, sine and cosine. They hold
    for any data as far as a direction has no variance.
    """
    require_affine(sde, "rotation_coefficients")
    times = as_time(times, sde.t_max)
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"times has shape {times.shape}; accepted: at least two times, shape (n,).")
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    area = alpha[-1] * sigma[0] - alpha[0] * sigma[-1]
    return jnp.stack([alpha[-1] * sigma - alpha * sigma[-1], alpha * sigma[0] - alpha[0] * sigma], axis=1) / area


def _nonzero(lengths: Array) -> Array:
    return jnp.where(lengths > 0, lengths, 1.0)
