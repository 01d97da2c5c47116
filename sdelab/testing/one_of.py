from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdelab._typing import Scalar, State, Time
from sdelab.sde import AbstractAffineSDE


class OneOf(AbstractAffineSDE):
    """The affine process `processes[index]`, where `index` is an array: what is compiled for one of them serves them all.

    Every method is that of the chosen process, constant beyond its own `t_max`. The interval is not its own: `t_min` and
    `t_max` are structure, here the widest of all, and grids are to be built from the process itself.
    """

    processes: tuple[AbstractAffineSDE, ...]
    index: Int[Array, ""]
    t_min: float = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(self, processes: tuple[AbstractAffineSDE, ...], index: int):
        self.processes = processes
        self.index = jnp.asarray(index)
        self.t_min = min(sde.t_min for sde in processes)
        self.t_max = max(sde.t_max for sde in processes)

    def drift(self, x: State, t: Time) -> State:
        return self._chosen(lambda sde, x, t: sde.drift(x, jnp.minimum(t, sde.t_max)), x, t)

    def diffusion(self, t: Time) -> Float[Array, "..."]:
        return self._of_time(lambda sde, t: sde.diffusion(jnp.minimum(t, sde.t_max)), t)

    def alpha(self, t: Time) -> Float[Array, "..."]:
        return self._of_time(lambda sde, t: sde.alpha(jnp.minimum(t, sde.t_max)), t)

    def sigma(self, t: Time) -> Float[Array, "..."]:
        return self._of_time(lambda sde, t: sde.sigma(jnp.minimum(t, sde.t_max)), t)

    def log_snr(self, t: Time) -> Float[Array, "..."]:
        return self._of_time(lambda sde, t: sde.log_snr(jnp.minimum(t, sde.t_max)), t)

    def log_snr_inverse(self, log_snr: Float[Array, "..."] | float) -> Float[Array, "..."]:
        return self._of_time(lambda sde, value: sde.log_snr_inverse(value), log_snr)

    def prior_std(self) -> Scalar:
        return self._of_time(lambda sde, t: jnp.asarray(sde.prior_std(), t.dtype), 0.0)

    def _of_time(self, method: Callable[[AbstractAffineSDE, Array], Any], t: Any) -> Array:
        t = jnp.asarray(t, jnp.result_type(t, float))
        return self._chosen(lambda sde, t: jnp.broadcast_to(jnp.asarray(method(sde, t), t.dtype), t.shape), t)

    def _chosen(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return jax.lax.switch(self.index, [partial(method, sde) for sde in self.processes], *arguments)
