r"""The mathematics that exponential integrators of the probability flow and of the reverse SDE share.

With $\lambda = \log(\alpha/\sigma)$, from $t_0$ to $t_1$ and $h = \lambda_1 - \lambda_0 > 0$, any affine process has the exact
solutions (Lu et al., 2022, proposition 3.1, https://arxiv.org/abs/2206.00927, and 2022b, proposition 4.1,
https://arxiv.org/abs/2211.01095)

1. noise prediction: $x_1 = \frac{\alpha_1}{\alpha_0} x_0 - \sigma_1 \int_0^h e^{h - u}\,\epsilon(u)\,du$;
2. data prediction: $x_1 = \frac{\sigma_1}{\sigma_0} x_0 + \alpha_1 \int_0^h e^{u - h} D(u)\,du$,

$u = \lambda - \lambda_0$. A method replaces $\epsilon$ or $D$ by a polynomial in $u$ and integrates it exactly. Where
$\sigma_1 = 0$, $h$ is infinite and only $x_1 = \alpha_1 D(x_0)$ is left.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab.sde import AbstractAffineSDE

TERMS = 28  # of the Taylor series below; at |z| <= 2 the first one left out is below 1e-16 of the sum


def half_log_snr(sde: AbstractAffineSDE, t: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$\lambda = \log(\alpha/\sigma)$, of the shape of `t`; `inf` where $\sigma = 0$."""
    return 0.5 * sde.log_snr(t)


def phis(count: int, z: Float[Array, "..."]) -> list[Float[Array, "..."]]:
    r"""$\varphi_k(z) = \int_0^1 e^{(1 - \theta) z} \theta^{k-1}/(k-1)!\,d\theta$ for $k = 1, \dots,$ `count`, of the shape of `z`.

    By $\varphi_{k+1}(z) = (\varphi_k(z) - 1/k!)/z$ for $|z| > 2$. Elsewhere, where that loses a digit for each power of ten, the
    Taylor series of the last, and the same recursion downwards. Hochbruck and Ostermann (2010), eq. 2.10 and 2.11,
    https://doi.org/10.1017/S0962492910000048.
    """
    is_near = jnp.abs(z) <= 2.0
    near, far = jnp.where(is_near, z, 0.0), jnp.where(is_near, 1.0, z)
    last = jnp.zeros_like(z)
    for n in reversed(range(TERMS)):
        last = last * near + 1.0 / math.factorial(n + count)
    series, recursion = [last], [jnp.expm1(far) / far]
    for k in range(1, count):
        recursion.append((recursion[-1] - 1.0 / math.factorial(k)) / far)
        series.append(series[-1] * near + 1.0 / math.factorial(count - k))
    return [jnp.where(is_near, a, b) for a, b in zip(reversed(series), recursion, strict=True)]


def moments(count: int, h: Float[Array, ""], sign: float) -> list[Float[Array, ""]]:
    r"""$\int_0^h e^{s (h - u)} u^j\,du = j!\,h^{j+1} \varphi_{j+1}(s h)$ for $j = 0, \dots,$ `count` - 1.

    `sign` $s$: +1 for noise prediction, -1 for data prediction. `h` finite.
    """
    return [math.factorial(j) * h ** (j + 1) * phi for j, phi in enumerate(phis(count, sign * h))]
