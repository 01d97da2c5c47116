"""Initial values of kernels, as published."""

import jax
from flax import nnx

_ZERO = 1e-10  # the published stand-in for a scale of 0


def uniform_fan_avg(scale: float | int = 1.0) -> nnx.Initializer:
    r"""Uniform with variance $2\,\mathrm{scale} / (n_{in} + n_{out})$, the initialiser of DDPM; scale 0 is 1e-10.

    Glorot and Bengio (2010), eq. 16, https://proceedings.mlr.press/v9/glorot10a.html; Ho et al. (2020), appendix B,
    https://arxiv.org/abs/2006.11239.
    """
    if scale < 0.0:
        raise ValueError(f"scale = {scale} is not accepted; scale must be a number >= 0.")
    return nnx.initializers.variance_scaling(scale or _ZERO, "fan_avg", "uniform")


def uniform_fan_in() -> nnx.Initializer:
    r"""Uniform on $\pm n_{in}^{-1/2}$, PyTorch's initialiser of kernels; `uniform_bias` is that of biases.

    The scale is LeCun et al.'s (1998), section 4.6, https://doi.org/10.1007/3-540-49430-8_2.
    """
    return nnx.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def uniform_bias(inputs: int) -> nnx.Initializer:
    r"""Uniform on $\pm \mathrm{inputs}^{-1/2}$, where `inputs` is what the kernel sums over."""

    def init(key, shape, dtype):
        bound = inputs**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
