"""A network and its parameters as a score. Any function of the signature of `Network` will do."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._broadcast import expand_right
from sdelab._callable import as_pytree_callable
from sdelab._typing import PRNGKeys, State, Time
from sdelab.score.base import AbstractScore
from sdelab.score.preconditioning import AbstractPreconditioner
from sdelab.sde import AbstractAffineSDE

Network: TypeAlias = Callable[..., State]
"""`(params, x, c_noise, condition, keys=None) -> out`: `c_noise` of shape `(batch,)`, `out` of the shape of `x`."""

_DROPOUT = 0x64726F70  # apart from the indices that others fold into the same per-sample keys


class NetworkScore(AbstractScore):
    r"""The score of a preconditioned network: $s = -(n_{skip} x + n_{out} F)/\sigma$, one evaluation of $F$.

    `denoise` and `noise` take the network's output directly, so that none of the three loses digits through
    another. All have the dtype of `x`, whatever the network computes in.

    Fields: `sde`; `preconditioner`; `apply`, a function `(params, x, c_noise, condition, keys=None)`, such as
    `sdelab.nn.as_function` returns; `params`, its pytree of arrays; `keys`, see `with_keys`.
    """

    sde: AbstractAffineSDE
    preconditioner: AbstractPreconditioner
    apply: Network = eqx.field(converter=as_pytree_callable)
    params: Any
    keys: PRNGKeys | None = None

    def __check_init__(self):
        if not isinstance(self.sde, AbstractAffineSDE):
            raise TypeError(f"sde = {self.sde!r} has no kernel; accepted: an instance of sdelab.AbstractAffineSDE.")
        if not isinstance(self.preconditioner, AbstractPreconditioner):
            raise TypeError(
                f"preconditioner = {self.preconditioner!r} is not accepted; accepted: an instance of "
                "sdelab.score.AbstractPreconditioner, such as NoisePrediction()."
            )

    def __call__(self, x: State, t: Time, condition: Any = None) -> State:
        return -self.noise(x, t, condition) / expand_right(self.sde.sigma(t), x)

    def denoise(self, x: State, t: Time, condition: Any = None) -> State:
        alpha, sigma, out = self._evaluate(x, t, condition)
        rule = self.preconditioner
        return expand_right(rule.c_skip(alpha, sigma), x) * x + expand_right(rule.c_out(alpha, sigma), x) * out

    def noise(self, x: State, t: Time, condition: Any = None) -> State:
        alpha, sigma, out = self._evaluate(x, t, condition)
        rule = self.preconditioner
        return expand_right(rule.n_skip(alpha, sigma), x) * x + expand_right(rule.n_out(alpha, sigma), x) * out

    def with_keys(self, keys: PRNGKeys) -> Self:
        """The same score with what the network draws (dropout) switched on: one key per sample of the batch.

        The keys that the loss is given may be used here too: the network's draws are kept apart from the loss's.
        """
        return dataclasses.replace(self, keys=jax.vmap(lambda key: jax.random.fold_in(key, _DROPOUT))(keys))

    def label(self, t: Time) -> Float[Array, "..."]:
        """What the network is told of the noise level at `t`, of its shape."""
        sigma = self.sde.sigma(t)
        return self.preconditioner.c_noise(jnp.asarray(t, sigma.dtype), self.sde.alpha(t), sigma)

    def _evaluate(self, x: State, t: Time, condition: Any) -> tuple[Array, Array, State]:
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        label = jnp.broadcast_to(expand_right(self.label(t), x).reshape(-1), x.shape[:1])
        x_in = expand_right(self.preconditioner.c_in(alpha, sigma), x) * x
        out = self.apply(self.params, x_in, label, condition, keys=self.keys)
        if out.shape != x.shape:
            raise ValueError(f"the network returned shape {out.shape} for an input of shape {x.shape}.")
        return alpha, sigma, out.astype(x.dtype)
