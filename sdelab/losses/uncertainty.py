r"""A learned uncertainty of the noise levels: the loss $L$ becomes $L\,e^{-u} + u$ with a log-variance $u$ of the level.

For given losses the best $u$ is $\log E L$ at each level, and then every level has weight one: $u$ levels the gradients'
scale as training goes on. Karras et al. (2024), section 2 and appendix B, https://arxiv.org/abs/2312.02696; Kendall, Gal and
Cipolla (2018), section 3.2, https://arxiv.org/abs/1705.07115. The published $u$ is `sdelab.nn.LogVariance`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def with_uncertainty(losses: Float[Array, " batch"], log_variance: Float[Array, " batch"]) -> Float[Array, " batch"]:
    r"""$L\,e^{-u} + u$, per example: `losses` $L$ and the `log_variance` $u$ at their noise levels.

    With $L$ a mean over the dimensions of a sample, as all of ours are, $u$ is the logarithm of the error of one of them.
    """
    return losses * jnp.exp(-log_variance) + log_variance
