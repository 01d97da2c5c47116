r"""What a process says of its density at t = 0: the residual on $[0, t_{min}]$, and a variational bound without any integration.

A model has a density $p_\theta$ at $t_{min} > 0$. With a decoder $p(x \mid x')$ it has one at t = 0 too,
$p(x) = \int p_\theta(x') p(x \mid x') dx'$, which the kernel $q(x' \mid x) = N(\alpha x, \sigma^2 I)$ at $t_{min}$ bounds by
Jensen's inequality:

$$-\log p(x) \le E_{x' \sim q(x' \mid x)} [-\log p_\theta(x') - \log p(x \mid x') + \log q(x' \mid x)].$$

The last two terms are the *residual*; the first is the flow's likelihood, or its own bound.
Song, Durkan, Murray and Ermon (2021), https://arxiv.org/abs/2101.09258.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdelab._broadcast import event_size, expand_right, sum_event
from sdelab._checks import check_increasing, check_instance, is_concrete
from sdelab._compile import as_arrays
from sdelab._typing import PRNGKey, PRNGKeys, Scalar, State
from sdelab.arguments import check_key, check_states
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.noise import sample_keys


class AbstractResidual(eqx.Module):
    r"""What stands between the density at $t_{min}$ and that of the data."""

    @abc.abstractmethod
    def __call__(
        self, keys: PRNGKeys, process: AbstractReverseProcess, x: State, t: Scalar
    ) -> tuple[State, Float[Array, " batch"]]:
        r"""For data `x`: the states at `t` whose $-\log p_t$ is asked for, and the nats to add to it."""


class NoResidual(AbstractResidual):
    r"""None: the density $p_{t_{min}}$ is evaluated at the data themselves and taken for theirs, as published codes do.

    It is a density of noisy data at a point without noise, so it bounds nothing; the difference is of the order of
    $\sigma(t_{min})^2$ where the data's density is smooth on that scale.
    """

    def __call__(
        self, keys: PRNGKeys, process: AbstractReverseProcess, x: State, t: Scalar
    ) -> tuple[State, Float[Array, " batch"]]:
        return x, jnp.zeros(x.shape[:1], x.dtype)


class Reconstruction(AbstractResidual):
    r"""The reconstruction term $E[-\log p(x \mid x') + \log q(x' \mid x)]$, $x' = \alpha x + \sigma\epsilon$, one draw a call.

    The decoder is the Gaussian about Tweedie's mean, $p(x \mid x') = N(D(x', t), (\sigma/\alpha)^2 I)$, for which the term is
    $\tfrac12 \|\epsilon_\theta(x') - \epsilon\|^2 - \tfrac12 \|\epsilon\|^2 - d \log\alpha$: nothing is divided by $\sigma$. It is
    near zero where the noise at $t_{min}$ cannot be told from the data ($\epsilon_\theta \approx 0$), and large where the model
    has learned that the data are discrete on that scale. One evaluation of the score. Errors: a process without a kernel.
    """

    def __call__(
        self, keys: PRNGKeys, process: AbstractReverseProcess, x: State, t: Scalar
    ) -> tuple[State, Float[Array, " batch"]]:
        sde = require_affine(process.sde, "the residual term Reconstruction() (NoResidual() goes without)")
        xt, eps = _perturb(keys, sde, x, jnp.broadcast_to(t, x.shape[:1]))
        error = process.noise(xt, t) - eps
        log_alpha = jnp.log(sde.alpha(t)).astype(x.dtype)
        return xt, 0.5 * sum_event(error**2 - eps**2) - event_size(x.shape) * log_alpha


class AbstractTimeProposal(eqx.Module):
    r"""Where in $[t_{min}, t_{max}]$ the integrand of the bound is evaluated."""

    @abc.abstractmethod
    def __call__(
        self, uniform: Float[Array, " batch"], sde: AbstractAffineSDE, t_min: Scalar
    ) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
        r"""Times by inverse distribution function from uniform numbers, and $g^2/\sigma^2$ over their density."""


class UniformInLogSNR(AbstractTimeProposal):
    r"""The importance-sampled time: density $\propto g^2/\sigma^2$ on $[t_{min}, t_{max}]$.

    Every affine process has $g^2/\sigma^2 = -\frac{d}{dt}\log(\alpha^2/\sigma^2)$, since $d\sigma^2/dt = 2 f \sigma^2 + g^2$. So the
    distribution function is linear in the log-SNR, its inverse is `log_snr_inverse`, and the weight is one number, the
    range of the log-SNR. `sdelab.losses.ImportanceSampledTime` tabulates the same density for training. For VP the
    distribution function is $\log(e^B - 1)$ up to scale, Song et al. (2021), section 5,
    https://arxiv.org/abs/2101.09258; Kingma et al. (2021), section 5, https://arxiv.org/abs/2107.00630.
    """

    def __call__(
        self, uniform: Float[Array, " batch"], sde: AbstractAffineSDE, t_min: Scalar
    ) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
        start, end = (sde.log_snr(jnp.asarray(t, uniform.dtype)) for t in (t_min, sde.t_max))
        times = sde.log_snr_inverse(start + uniform * (end - start))
        return jnp.clip(times, t_min, sde.t_max), jnp.full_like(uniform, start - end)


class UniformInTime(AbstractTimeProposal):
    r"""Times uniform on $[t_{min}, t_{max}]$, weighed by $g^2/\sigma^2$: unbiased too, with a variance that grows as $t_{min}$ falls."""

    def __call__(
        self, uniform: Float[Array, " batch"], sde: AbstractAffineSDE, t_min: Scalar
    ) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
        times = t_min + uniform * (sde.t_max - t_min)
        return times, (sde.t_max - t_min) * (sde.diffusion(times) / sde.sigma(times)) ** 2


class VariationalBound(eqx.Module):
    r"""An upper bound of the negative log-likelihood in nats, and its terms, each of shape `(batch,)`.

    `nats` = `entropy` + `prior` + `diffusion` + `residual`: $H(q(x_{t_{min}} \mid x_0))$,
    $KL(q(x_{t_{max}} \mid x_0) \| \pi)$, $\tfrac12 \int g^2 E\|s - \nabla\log q(x_t \mid x_0)\|^2 dt$ and the residual.
    `standard_error` of the estimate of `nats` over times and noise.
    """

    nats: Float[Array, " batch"]
    standard_error: Float[Array, " batch"]
    entropy: Float[Array, " batch"]
    prior: Float[Array, " batch"]
    diffusion: Float[Array, " batch"]
    residual: Float[Array, " batch"]


def variational_bound(
    key: PRNGKey | PRNGKeys,
    process: AbstractReverseProcess,
    x0: State,
    *,
    times: int = 64,
    proposal: AbstractTimeProposal = UniformInLogSNR(),
    residual: AbstractResidual = NoResidual(),
    t_min: float | None = None,
) -> VariationalBound:
    r"""The evidence lower bound by denoising score matching, negated: a bound of $-\log p_\theta$ in nats, per sample.

    $$-E_{q(x_{t_{min}} \mid x_0)} \log p_\theta(x_{t_{min}}) \le H(q(x_{t_{min}} \mid x_0)) + KL(q(x_{t_{max}} \mid x_0) \| \pi)
    + \tfrac12 \int_{t_{min}}^{t_{max}} g^2\,E\|s - \nabla\log q(x_t \mid x_0)\|^2 dt$$

    for the density $p_\theta$ at `t_min` of the reverse SDE (stochasticity 1) from its prior $\pi$. Entropy and prior term are
    closed forms; the integral is an average over `times` stratified times, with new noise at each. With the exact score
    the mean over data is $H(p_{t_{min}}) + KL(p_{t_{max}} \| \pi)$: the bound is tight up to the prior. With
    `residual=Reconstruction()` it bounds $-\log p(x_0)$ at t = 0. Song et al. (2021), theorem 3,
    https://arxiv.org/abs/2101.09258.

    `process`: a `ReverseSDE`, with its condition; `x0`: `(batch, *event)`; `key`: one, or one per sample; `times`: even,
    one evaluation each, and one more with a `Reconstruction`; `t_min`: default the process's. Errors: a probability flow,
    another stochasticity, a process without a kernel, sigma(t_min) = 0.
    """
    sde = _check_process(process)
    check_instance(AbstractTimeProposal, proposal=proposal)
    check_instance(AbstractResidual, residual=residual)
    x0 = check_states(process, x0)
    check_key(key, x0.shape[0], needed=True)
    if isinstance(times, bool) or not isinstance(times, int) or times < 2 or times % 2:
        raise ValueError(
            f"times = {times!r} is not accepted; times must be an even integer >= 2: the error is that of pairs."
        )
    start = sde.t_min if t_min is None else float(t_min)
    check_increasing(t_min=start, t_max=sde.t_max)
    if is_concrete(sde) and not float(jnp.asarray(sde.sigma(start))) > 0:
        raise ValueError(f"t_min = {start} is not accepted: sigma = 0 there, and the bound is infinite.")
    keys = sample_keys(key, x0.shape[0]) if key.ndim == 0 else key
    return _bound(as_arrays(process), x0, keys, jnp.asarray(start, x0.dtype), times, proposal, residual)


@eqx.filter_jit
def _bound(
    process: AbstractReverseProcess,
    x0: State,
    keys: PRNGKeys,
    t_min: Float[Array, ""],
    count: int,
    proposal: AbstractTimeProposal,
    residual: AbstractResidual,
) -> VariationalBound:
    sde = require_affine(process.sde, "variational_bound")

    def term(stratum: Array) -> tuple[Array, Array]:
        own = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, stratum), 3), out_axes=1)(keys)
        uniform = jax.vmap(lambda key: jax.random.uniform(key, dtype=x0.dtype))(own[0])
        t, weight = proposal((stratum + uniform) / count, sde, t_min)
        xt, eps = _perturb(own[1], sde, x0, t)
        error = sum_event((process.noise(xt, t) - eps) ** 2)
        return 0.5 * weight.astype(x0.dtype) * error, residual(own[2], process, x0, t_min)[1]

    diffusion, rest = jax.lax.map(term, jnp.arange(count).astype(x0.dtype))
    pairs = diffusion.reshape(count // 2, 2, -1)  # collapsed strata: neighbours have nearly the same mean
    variance = jnp.sum((pairs[:, 0] - pairs[:, 1]) ** 2, axis=0) / count**2 + jnp.var(rest, axis=0, ddof=1) / count
    entropy = jnp.full(x0.shape[:1], event_size(x0.shape) * _gaussian_entropy(sde.sigma(t_min)), x0.dtype)
    terms = (entropy, _prior_divergence(sde, x0), jnp.mean(diffusion, axis=0), jnp.mean(rest, axis=0))
    return VariationalBound(terms[0] + terms[1] + terms[2] + terms[3], jnp.sqrt(variance), *terms)


def _perturb(keys: PRNGKeys, sde: AbstractAffineSDE, x0: State, t: Float[Array, " batch"]) -> tuple[State, State]:
    """$x_t$ and the noise in it, each sample's from its own key."""
    eps = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:], x0.dtype))(keys)
    mean, std = sde.marginal(x0, t)
    return (mean + expand_right(std, x0) * eps).astype(x0.dtype), eps


def _prior_divergence(sde: AbstractAffineSDE, x0: State) -> Float[Array, " batch"]:
    r"""$KL(N(\alpha x_0, \sigma^2 I) \| N(0, \mathrm{prior\_std}^2 I))$ at `t_max`."""
    t_max = jnp.asarray(sde.t_max, x0.dtype)
    std = jnp.asarray(sde.prior_std(), x0.dtype)
    log_ratio = 2.0 * (jnp.log(sde.sigma(t_max)) - jnp.log(std))
    spread = event_size(x0.shape) * (jnp.expm1(log_ratio) - log_ratio)
    return (0.5 * (spread + sum_event((sde.alpha(t_max) / std * x0) ** 2))).astype(x0.dtype)


def _gaussian_entropy(std: Array) -> Array:
    return 0.5 * np.log(2 * np.pi * np.e) + jnp.log(std)


def _check_process(process: Any) -> AbstractAffineSDE:
    if not isinstance(process, AbstractReverseProcess) or not process.stochastic:
        raise TypeError(
            f"process = {process!r} is not accepted: the bound is one of the reverse SDE's density; accepted: "
            "ReverseSDE(sde, score). log_prob has the density of the probability flow."
        )
    level = process.noise_level()
    if is_concrete(level) and float(jnp.asarray(level)) != 1.0:
        raise ValueError(f"stochasticity = {level} is not accepted: the bound holds for the reverse SDE with 1.")
    return require_affine(process.sde, "variational_bound")
