from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from sdelab import grids
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess
from sdelab.sampling import sample


def sensitivity(
    process: AbstractReverseProcess,
    x: State,
    direction: State,
    *,
    solver: diffrax.AbstractSolver,
    grid: grids.GridLike,
    key: Key[Array, "..."] | None = None,
    **arguments: Any,
) -> State:
    r"""What a perturbation of `x` along `direction`, at the first time of `grid`, does to the sample: $\frac{dx_0}{dx_t} v$.

    A derivative through the solver, with forward-mode differentiation (`jax.jvp`), of the shape of `x`; its norm over that of
    `direction` says how much is left of the perturbation, or how much has become of it. Perturbations at times when a feature is
    still undecided grow into the sample, later ones are forgotten: for Gaussian data the factor is
    $\sqrt{(\alpha_0^2\lambda + \sigma_0^2)/(\alpha_t^2\lambda + \sigma_t^2)}$ along an eigenvector (`GaussianFlow.push`). Wang and Vastola
    (2023), https://arxiv.org/abs/2303.02490.

    `x`, the states at `grid[0]`, and `direction`: `(batch, *event)`, each sample its own. `grid`, `key` and further
    `arguments` as `sdelab.sample` takes them: with `rtol` and `atol` two times are enough, and the steps are constants of the
    derivative; with a stochastic process the noise is held fixed. Grids of equal length share one compiled program, so that
    `grids.log_snr(sde, n, t_max=t)` is the way to a curve over t.
    Errors: a direction of another shape; what `sample` refuses; an adjoint, which is `diffrax.ForwardMode()`.
    """
    if "adjoint" in arguments:
        raise TypeError("adjoint is not accepted: the derivative goes forwards, by diffrax.ForwardMode().")
    x, direction = jnp.asarray(x) * 1.0, jnp.asarray(direction) * 1.0
    if x.shape != direction.shape:
        raise ValueError(f"direction has shape {direction.shape}; accepted: that of x, {x.shape}.")

    def end(x: State) -> State:
        return sample(key, process, x, solver=solver, grid=grid, adjoint=diffrax.ForwardMode(), **arguments)

    return jax.jvp(end, (x,), (direction.astype(x.dtype),))[1]
