r"""The losses of the models on a table of noise levels: DDPM and SMLD.

A network that was trained so has the preconditioner `ScoreSDEDiscreteVP` or `ScoreSDEDiscreteVE` of the same fields.
"""

import abc
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float, Int

from sdelab._broadcast import event_size, expand_right, sum_event
from sdelab._checks import check_count, check_increasing, check_instance, check_nonnegative, check_positive
from sdelab._typing import PRNGKey, PRNGKeys, State
from sdelab.losses.denoising import check_data
from sdelab.losses.sample_keys import normal_of, sample_keys
from sdelab.score.tables import ddpm_log_alpha, smld_log_sigma

LabelledNetwork: TypeAlias = Callable[..., State]
"""`(x, label) -> out`, or `(x, label, condition) -> out`: `label` of shape `(batch,)` and the dtype of `x`."""


class AbstractLevels(eqx.Module):
    r"""A table of `n` kernels $N(\alpha_i x_0, \sigma_i^2 I)$ with the labels 0 to n - 1, and what a network predicts there."""

    n: AbstractVar[int]

    @abc.abstractmethod
    def kernel(self) -> tuple[np.ndarray, np.ndarray]:
        r"""$\alpha_i$ and $\sigma_i$ of all labels in float64, each of shape `(n,)`."""

    @abc.abstractmethod
    def noise(self, out: State, sigma: Float[Array, "..."]) -> State:
        r"""The predicted noise that the output of the network stands for at $\sigma_i$."""


class DDPMLevels(AbstractLevels):
    r"""DDPM's: $\alpha_i^2 = \prod_{j \le i} (1 - \beta_j)$, $\sigma_i^2 = 1 - \alpha_i^2$, label 0 the smallest noise; $F = \epsilon$.

    $\beta_j$ is linear from $\beta_{min}/N$ to $\beta_{max}/N$. Ho et al. (2020), eq. 4 and 14, https://arxiv.org/abs/2006.11239;
    Song et al. (2021), appendix B, https://arxiv.org/abs/2011.13456.

    Fields: `n` = N; 0 <= `beta_min`, `beta_max` < N.
    """

    n: int = eqx.field(default=1000, static=True)
    beta_min: float = eqx.field(default=0.1, static=True, converter=float)
    beta_max: float = eqx.field(default=20.0, static=True, converter=float)

    def __check_init__(self):
        check_count(n=self.n)
        check_nonnegative(beta_min=self.beta_min, beta_max=self.beta_max)
        check_increasing(beta_max=self.beta_max, n=self.n)

    def kernel(self) -> tuple[np.ndarray, np.ndarray]:
        log_alpha = ddpm_log_alpha(self.n, self.beta_min, self.beta_max)
        return np.exp(log_alpha), np.sqrt(-np.expm1(2.0 * log_alpha))

    def noise(self, out: State, sigma: Float[Array, "..."]) -> State:
        return out


class SMLDLevels(AbstractLevels):
    r"""SMLD's: $\alpha = 1$, $\sigma_i$ log-spaced, label 0 the *largest*; $F = s$, hence $\epsilon = -\sigma F$.

    Song and Ermon (2019), eq. 5 and 6 with $\lambda = \sigma^2$, https://arxiv.org/abs/1907.05600; Song et al. (2021),
    appendix B, https://arxiv.org/abs/2011.13456.

    Fields: `n`; 0 < `sigma_min` < `sigma_max`.
    """

    n: int = eqx.field(default=1000, static=True)
    sigma_min: float = eqx.field(default=0.01, static=True, converter=float)
    sigma_max: float = eqx.field(default=50.0, static=True, converter=float)

    def __check_init__(self):
        check_count(n=self.n)
        check_positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_increasing(sigma_min=self.sigma_min, sigma_max=self.sigma_max)

    def kernel(self) -> tuple[np.ndarray, np.ndarray]:
        sigma = np.exp(smld_log_sigma(self.n, self.sigma_min, self.sigma_max))
        return np.ones_like(sigma), sigma

    def noise(self, out: State, sigma: Float[Array, "..."]) -> State:
        return -sigma * out


def discrete_denoising(
    keys: PRNGKeys | PRNGKey, network: LabelledNetwork, levels: AbstractLevels, x0: State, *, condition: Any = None
) -> Float[Array, " batch"]:
    """Per-example losses, shape `(batch,)`, at labels drawn alike from the table. `keys` as in `denoising_score_matching`."""
    check_instance(AbstractLevels, levels=levels)
    x0 = check_data(x0)
    keys, _, _ = sample_keys(keys, x0.shape[0], None, None)
    key_label, key_noise = jax.vmap(jax.random.split, out_axes=1)(keys)
    labels = jax.vmap(lambda key: jax.random.randint(key, (), 0, levels.n))(key_label)
    return discrete_loss(network, levels, x0, labels, normal_of(key_noise, x0), condition=condition)


def discrete_loss(
    network: LabelledNetwork,
    levels: AbstractLevels,
    x0: State,
    labels: Int[Array, " batch"],
    eps: State,
    *,
    condition: Any = None,
) -> Float[Array, " batch"]:
    r"""Per-example losses $\frac1d \|\epsilon_\theta(x_i, i) - \epsilon\|^2$ at given labels and noise.

    The published "sum" form is $d/2$ times that.
    """
    alpha, sigma = (expand_right(jnp.asarray(v, x0.dtype)[labels], x0) for v in levels.kernel())
    xt, label = alpha * x0 + sigma * eps, labels.astype(x0.dtype)
    out = network(xt, label) if condition is None else network(xt, label, condition)
    if out.shape != x0.shape:
        raise ValueError(f"the network returned shape {out.shape} for an input of shape {x0.shape}.")
    return sum_event((levels.noise(out, sigma) - eps) ** 2) / event_size(x0.shape)
