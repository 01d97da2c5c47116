"""What a loss makes of the dimensions of a sample: the losses here are means over them, published ones often sums.

It is a factor, which Adam does not see; a bound on the norm of the gradient does, and so does Adam's epsilon.
"""

import abc

import equinox as eqx

from sdelab._checks import check_count


class AbstractReduction(eqx.Module):
    """A factor of per-example losses that are means over the dimensions."""

    @abc.abstractmethod
    def factor(self, dimensions: int) -> float:
        """Of samples of so many dimensions. Errors: fewer than one."""


class MeanReduction(AbstractReduction):
    r"""$\frac1d \sum_i$, as it is: score_sde's `reduce_mean=True`, published for VP and sub-VP."""

    def factor(self, dimensions: int) -> float:
        check_count(dimensions=dimensions)
        return 1.0


class SumReduction(AbstractReduction):
    r"""$\sum_i$, as EDM is trained. Karras et al. (2022), https://github.com/NVlabs/edm, `training/training_loop.py`."""

    def factor(self, dimensions: int) -> float:
        check_count(dimensions=dimensions)
        return float(dimensions)


class HalfSumReduction(AbstractReduction):
    r"""$\frac12 \sum_i$: score_sde's `reduce_mean=False`, published for VE.

    Song et al. (2021), https://github.com/yang-song/score_sde, `losses.py`.
    """

    def factor(self, dimensions: int) -> float:
        check_count(dimensions=dimensions)
        return 0.5 * dimensions
