"""Initial values of kernels, as published."""

from flax import nnx

_ZERO = 1e-10  # the published stand-in for a scale of 0


def uniform_fan_avg(scale: float = 1.0) -> nnx.Initializer:
    r"""Uniform with variance $2\,\mathrm{scale} / (n_{in} + n_{out})$, the initialiser of DDPM; scale 0 is 1e-10.

    Glorot and Bengio (2010), eq. 16, https://proceedings.mlr.press/v9/glorot10a.html; Ho et al. (2020), appendix B,
    https://arxiv.org/abs/2006.11239.
    """
    if scale < 0.0:
        raise ValueError(f"scale = {scale} is not accepted; scale must be a number >= 0.")
    return nnx.initializers.variance_scaling(scale or _ZERO, "fan_avg", "uniform")
