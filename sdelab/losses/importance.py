import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdelab import grids
from sdelab._checks import check_count, check_positive, concrete_time
from sdelab.losses.time_sampling import AbstractTimeDistribution, Times
from sdelab.sde import AbstractAffineSDE, AbstractSDE


class ImportanceSampledTime(AbstractTimeDistribution):
    r"""Times of density $\propto g^2/\sigma^2$ on $[t_{min}, t_{max}]$, as a proposal for times uniform there.

    With $\lambda = g^2$ the weighted loss is then nearly $\|\sigma s + \epsilon\|^2$ times a constant: the likelihood objective
    without the variance of its weight. Every affine process has $g^2/\sigma^2 = -\frac{d}{dt}\log(\alpha^2/\sigma^2)$, so its
    distribution function is the share of the log-SNR's range that is passed. For VP $F \propto \log(e^B - 1)$, for
    sub-VP $2 \log\sinh(B/2)$. The inverse is tabulated at equal steps in log-SNR, in float64 on the host
    (`grids.log_snr`), and interpolated linearly: it is monotone, its density $q$ is constant on each step and known,
    and the weight $\frac{1}{(t_{max} - t_{min})\,q}$ is that of what is drawn. So the loss is unbiased however coarse the table.
    `sdelab.bounds.UniformInLogSNR` is the same density for likelihood bounds, by bisection of a traced process.
    Song, Durkan, Murray and Ermon (2021), section 5.1 and appendix B, https://arxiv.org/abs/2101.09258.

    Arguments: `sde`, a concrete affine process (for another one on the same interval the loss stays unbiased); `t_min` > 0
    with $\sigma(t_{min}) > 0$; `steps` >= 1 of the table. Errors: a process that is traced, or has no kernel.
    """

    times: Float[Array, " steps_plus_1"]
    widths: Float[Array, " steps"]
    t_min: float = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(self, sde: AbstractAffineSDE, t_min: float = 1e-5, *, steps: int = 4096):
        self.t_min, self.t_max = concrete_time(t_min), sde.t_max
        check_positive(t_min=self.t_min)
        check_count(steps=steps)
        times = grids.log_snr(sde, steps, t_min=self.t_min)[::-1]
        dtype = jnp.result_type(float)
        self.times, self.widths = jnp.asarray(times, dtype), jnp.asarray(np.diff(times), dtype)

    def quantile(self, uniform: Float[Array, " batch"], sde: AbstractSDE) -> Times:
        if sde.t_max != self.t_max:
            raise ValueError(
                f"sde.t_max = {sde.t_max} is not accepted; these times are those of a process with t_max = {self.t_max}."
            )
        steps = self.widths.shape[0]
        position = uniform * steps
        cell = jnp.minimum(position.astype(jnp.int32), steps - 1)
        width = self.widths[cell]
        times = self.times[cell] + (position - cell.astype(position.dtype)) * width
        return jnp.clip(times, self.t_min, self.t_max), width * (steps / (self.t_max - self.t_min))

    def density(self, t: Float[Array, " batch"]) -> Float[Array, " batch"]:
        r"""$q(t)$ per unit of time, for t in $[t_{min}, t_{max}]$."""
        steps = self.widths.shape[0]
        cell = jnp.clip(jnp.searchsorted(self.times, t, side="right") - 1, 0, steps - 1)
        return 1.0 / (steps * self.widths[cell])
