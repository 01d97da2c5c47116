from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from sdelab._checks import check_count
from sdelab._typing import PRNGKeys


class LeadingChannels(nnx.Module):
    """A network of which only the first `channels` output channels are used.

    iDDPM's networks return twice the image's channels: the noise, then the interpolation of the variance, which a
    score has no use for. Nichol and Dhariwal (2021), section 3.1, https://arxiv.org/abs/2102.09672.

    Arguments: `network`, called `(x, c_noise, condition, keys)`; `channels`, at most those that it returns.
    """

    def __init__(self, network: nnx.Module, channels: int):
        check_count(channels=channels)
        self.network, self.channels = network, channels

    def __call__(
        self,
        x: Float[Array, "batch *space channels"],
        c_noise: Float[Array, " batch"],
        condition: Any = None,
        keys: PRNGKeys | None = None,
    ) -> Float[Array, "batch *space leading"]:
        out = self.network(x, c_noise, condition, keys)
        if out.shape[-1] < self.channels:
            raise ValueError(
                f"channels = {self.channels} is not accepted; the network returns {out.shape[-1]} channels."
            )
        return out[..., : self.channels]
