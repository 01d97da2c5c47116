import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_jvp
def swish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$x\,\sigma(x)$ with the logistic $\sigma$. Ramachandran et al. (2017), https://arxiv.org/abs/1710.05941.

    The derivative is a function of x alone: where both are computed by one program, $\sigma$ is not kept in memory
    from the one to the other, as it is for `jax.nn.silu`. It can be differentiated again, in either mode.
    """
    return x * jax.nn.sigmoid(x)


@swish.defjvp
def _swish_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    # by another exponential: the compiler would recognise the forward pass's logistic, and keep it after all; and the division comes
    # last: XLA on CPU computes a division once for all that read it, and they read one array; of a product they would read its factors
    power = jnp.exp(jnp.minimum(x, 30.0))
    return swish(x), tangent * (power / (1.0 + power) * (1.0 + power + x) / (1.0 + power))
