import math

from sdelab.evaluate.doctor.moments import Moments


def prior_mismatch(alpha: float, sigma: float, prior_std: float, moments: Moments) -> tuple[float, float]:
    r"""Bounds of $KL(p_T \Vert N(0, s^2 I))$ in nats: what the samples of the process at its end differ from the prior by.

    With the covariance's eigenvalues $\lambda_i$ and the mean $m$ of the data, $v_i = (\alpha^2\lambda_i + \sigma^2)/s^2$:

    - from below, $\tfrac12\big[\sum_i (v_i - 1 - \log v_i) + \alpha^2 \lVert m \rVert^2/s^2\big]$, which Gaussian data attain: of
      all distributions with these moments the Gaussian has the largest entropy;
    - from above, $d[\log(s/\sigma) + \tfrac12(\sigma^2/s^2 - 1)] + \alpha^2 E\lVert x_0 \rVert^2/(2 s^2)$, the mean over the
      data of the kernel's divergence, since KL is convex.

    Moments that are bounds themselves leave the lower one at 0. Errors: none; infinite where $\sigma = 0$.
    """
    if sigma == 0.0:
        return math.inf, math.inf
    kernel, signal = (sigma / prior_std) ** 2, (alpha / prior_std) ** 2
    power = signal * moments.dims * moments.mean_square
    above = 0.5 * moments.dims * _excess(kernel - 1.0) + 0.5 * power
    if not moments.samples:
        return 0.0, above
    seen = [_excess(signal * float(value) + kernel - 1.0) for value in moments.spectrum]
    rest = (moments.dims - len(seen)) * _excess(kernel - 1.0)
    return 0.5 * (sum(seen) + rest + signal * moments.mean_norm**2), above


def _excess(u: float) -> float:
    r"""$v - 1 - \log v$ of $v = 1 + u$, with all its digits near $v = 1$."""
    return u - math.log1p(u) if abs(u) > 1e-4 else u * u * (0.5 - u / 3.0 + u * u / 4.0)
