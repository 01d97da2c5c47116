import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._checks import check_count


class PrincipalComponents(eqx.Module):
    r"""The principal components of trajectories, of each sample by itself.

    Fields: `mean` over the times, `(batch, *event)`; `vectors`, orthonormal, `(batch, k, *event)`; `variances` along them in
    decreasing order, `(batch, k)`; `total`, the variance in all directions, `(batch,)`.
    """

    mean: Float[Array, "batch ..."]
    vectors: Float[Array, "batch k ..."]
    variances: Float[Array, "batch k"]
    total: Float[Array, " batch"]

    @property
    def explained(self) -> Float[Array, "batch k"]:
        """The share of the variance along each component; 0 for a trajectory that rests."""
        total = self.total[:, None]
        return jnp.where(total > 0, self.variances / jnp.where(total > 0, total, 1.0), 0.0)

    def project(self, states: Float[Array, "times batch ..."]) -> Float[Array, "times batch k"]:
        """Coordinates of states along the components, about the mean: `(times, batch, k)`."""
        flat = _flat(states - self.mean[None])
        vectors = self.vectors.reshape(*self.variances.shape, -1)
        return jnp.einsum("tbd,bkd->tbk", flat, vectors, precision=jax.lax.Precision.HIGHEST)


def principal_components(states: Float[Array, "times batch ..."], count: int | None = None) -> PrincipalComponents:
    r"""The first `count` principal components of each trajectory, all of them by default.

    `states` are `(times, batch, *event)`, as `sdelab.trajectory` returns them. Every state counts alike, so the grid weighs
    the times. The trajectories of trained models lie almost in a plane: two components explain most of the
    variance. Wang and Vastola (2023), https://arxiv.org/abs/2303.02490.
    Errors: fewer than two times; more components than there are.
    """
    if states.ndim < 3 or states.shape[0] < 2 or states.size == 0:
        raise ValueError(f"states have shape {states.shape}; accepted: (times, batch, *event) with at least two times.")
    mean = jnp.mean(states, axis=0)
    deviations = jnp.swapaxes(_flat(states - mean[None]), 0, 1)
    most = min(deviations.shape[1:])
    count = most if count is None else count
    check_count(count=count)
    if count > most:
        raise ValueError(f"count = {count} is not accepted; these trajectories have {most} components.")
    _, singular, vectors = jnp.linalg.svd(deviations, full_matrices=False)
    variances = singular**2 / states.shape[0]
    kept = vectors[:, :count].reshape(states.shape[1], count, *states.shape[2:])
    return PrincipalComponents(mean, kept, variances[:, :count], jnp.sum(variances, axis=1))


def _flat(states: Float[Array, "times batch ..."]) -> Float[Array, "times batch d"]:
    return states.reshape(*states.shape[:2], -1)
