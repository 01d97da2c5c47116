"""What a trajectory looks like: the closed-form flow of a Gaussian, what it saves, and tools to look at any flow with."""

from sdelab.geometry.emergence import Emergence as Emergence
from sdelab.geometry.emergence import denoised as denoised
from sdelab.geometry.emergence import emergence as emergence
from sdelab.geometry.emergence import gaussian_emergence_times as gaussian_emergence_times
from sdelab.geometry.emergence import gaussian_variances as gaussian_variances
from sdelab.geometry.estimate import diagonal_gaussian as diagonal_gaussian
from sdelab.geometry.estimate import full_gaussian as full_gaussian
from sdelab.geometry.estimate import low_rank_gaussian as low_rank_gaussian
from sdelab.geometry.gaussian_flow import GaussianFlow as GaussianFlow
from sdelab.geometry.gaussian_flow import growth as growth
from sdelab.geometry.principal_components import PrincipalComponents as PrincipalComponents
from sdelab.geometry.principal_components import principal_components as principal_components
from sdelab.geometry.rotation import RotationPlane as RotationPlane
from sdelab.geometry.rotation import rotation_coefficients as rotation_coefficients
from sdelab.geometry.rotation import rotation_plane as rotation_plane
from sdelab.geometry.saving import ErrorCurve as ErrorCurve
from sdelab.geometry.saving import Saving as Saving
from sdelab.geometry.saving import measure_saving as measure_saving
from sdelab.geometry.sensitivity import sensitivity as sensitivity
from sdelab.geometry.warm_start import GaussianWarmStart as GaussianWarmStart
