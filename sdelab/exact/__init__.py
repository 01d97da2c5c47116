"""Distributions with an exact score under every affine process: the ground truth of every test and picture."""

from sdelab.exact.base import AbstractDensity as AbstractDensity
from sdelab.exact.base import AbstractDistribution as AbstractDistribution
from sdelab.exact.base import AbstractExactScore as AbstractExactScore
from sdelab.exact.covariance import AbstractCovariance as AbstractCovariance
from sdelab.exact.covariance import Diagonal as Diagonal
from sdelab.exact.covariance import Full as Full
from sdelab.exact.covariance import LowRank as LowRank
from sdelab.exact.empirical import Empirical as Empirical
from sdelab.exact.gaussian import Gaussian as Gaussian
from sdelab.exact.mixture import GaussianMixture as GaussianMixture
