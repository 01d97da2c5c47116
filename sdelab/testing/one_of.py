from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdelab._broadcast import expand_right
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
        rate = self._of_time(lambda sde, t: sde.drift(jnp.ones_like(t), jnp.minimum(t, sde.t_max)), t)  # linear in x
        return expand_right(rate, x) * x

    def diffusion(self, t: Time) -> Float[Array, "..."]:
        return self._of_time(lambda sde, t: sde.diffusion(jnp.minimum(t, sde.t_max)), t)

    def alpha(self, t: Time) -> Float[Array, "..."]:
        return self._of_time(lambda sde, t: sde.alpha(jnp.minimum(t, sde.t_max)), t)

    def sigma(self, t: Time) -> Float[Array, "..."]:
        return self._of_time(lambda sde, t: sde.sigma(jnp.minimum(t, sde.t_max)), t)

    def log_snr(self, t: Time) -> Float[Array, "..."]:
        return self._of_time(lambda sde, t: sde.log_snr(jnp.minimum(t, sde.t_max)), t)

    def log_snr_inverse(self, log_snr: Float[Array, "..."] | float) -> Float[Array, "..."]:
        value = jnp.asarray(log_snr, jnp.result_type(log_snr, float))
        return jax.lax.switch(self.index, [lambda v, sde=sde: sde.log_snr_inverse(v) for sde in self.processes], value)

    def prior_std(self) -> Scalar:
        return self._of_time(lambda sde, t: jnp.asarray(sde.prior_std(), t.dtype), 0.0)

    def _of_time(self, method: Callable[[AbstractAffineSDE, Array], Any], t: Any) -> Array:
        """All of them, and one is taken: cheaper to compile than branches, and no more than a few numbers."""
        t = jnp.asarray(t, jnp.result_type(t, float))
        values = [jnp.broadcast_to(jnp.asarray(method(sde, t), t.dtype), t.shape) for sde in self.processes]
        return jnp.stack(values)[self.index]
