"""How the state at a training time is drawn: from the kernel, or along a simulated path where there is none."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._broadcast import expand_right
from sdelab._checks import check_count
from sdelab._typing import PRNGKeys, State
from sdelab.losses.sample_keys import normal_of
from sdelab.reverse import require_affine
from sdelab.sde import AbstractSDE


class AbstractForwardDraw(eqx.Module):
    r"""A rule that draws $x_t$ given $x_0$."""

    @abc.abstractmethod
    def __call__(self, keys: PRNGKeys, sde: AbstractSDE, x0: State, t: Float[Array, " batch"]) -> State:
        """One state per sample at its own time, from its own key, of the shape of `x0`."""


class Kernel(AbstractForwardDraw):
    r"""$x_t = \alpha x_0 + \sigma\epsilon$, without error. Errors: a process that has no kernel."""

    def __call__(self, keys: PRNGKeys, sde: AbstractSDE, x0: State, t: Float[Array, " batch"]) -> State:
        mean, std = require_affine(sde, "Kernel() (EulerMaruyamaPath() simulates a path)").marginal(x0, t)
        return mean + expand_right(std, x0) * normal_of(keys, x0)


class EulerMaruyamaPath(AbstractForwardDraw):
    r"""The end of an Euler–Maruyama path from $x_0$ at time 0 to $t$, in `steps` equal steps of each sample's own length $h = t/n$.

    $x_{k+1} = x_k + f(x_k, t_k) h + g(t_k) \sqrt h\,z_k$. Any process with a drift that is finite at t = 0. Weak order 1: what
    the density of $x_t$ is off by, and with it the expected loss and the score that minimises it, is $O(t/n)$; halving
    the step halves it. No gradient flows through the path. Kloeden and Platen (1992), theorem 14.5.2.

    Fields: `steps` = n >= 1, as many evaluations of the drift.
    """

    steps: int = eqx.field(default=100, static=True)

    def __check_init__(self):
        check_count(steps=self.steps)

    def __call__(self, keys: PRNGKeys, sde: AbstractSDE, x0: State, t: Float[Array, " batch"]) -> State:
        h = (t / self.steps).astype(x0.dtype)
        frozen = jax.lax.stop_gradient(sde)

        def step(k: Array, x: State) -> State:
            now = jnp.minimum(k.astype(h.dtype) * h, t)
            z = normal_of(jax.vmap(jax.random.fold_in, (0, None))(keys, k), x)
            spread = expand_right(frozen.diffusion(now) * jnp.sqrt(h), x)
            return (x + frozen.drift(x, now) * expand_right(h, x) + spread * z).astype(x.dtype)

        return jax.lax.fori_loop(0, self.steps, step, jax.lax.stop_gradient(x0))
