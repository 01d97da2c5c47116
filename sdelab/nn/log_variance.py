import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab.nn.magnitude_preserving import MPConv, MPFourier


class LogVariance(nnx.Module):
    r"""EDM2's uncertainty $u$ of a noise level: the logarithm of the loss that is expected there, `(batch,)`, float32.

    One linear map of random Fourier features, trained beside the network, so that $e^{-u} L + u$ balances the levels'
    losses. `apply, params = sdelab.nn.as_function(LogVariance(rngs=rngs))` makes it a function
    `(params, c_noise) -> u`; its parameters belong in the tree that is trained.
    Karras et al. (2024), eq. 14 to 16 and 21, https://arxiv.org/abs/2312.02696.

    Arguments: `features`, their number; `param_dtype`.
    """

    def __init__(self, *, features: int = 128, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.fourier = MPFourier(features, param_dtype=param_dtype, rngs=rngs)
        self.linear = MPConv(features, 1, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, c_noise: Float[Array, " batch"]) -> Float[Array, " batch"]:
        return self.linear(self.fourier(c_noise))[:, 0]
