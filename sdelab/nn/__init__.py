"""Networks, in Flax NNX, and the way from a module to a pure function of its parameters.

A network is called `(x, c_noise, condition=None, keys=None)`, with one noise label per sample, and returns float32.
"""

from sdelab.nn.adm import ADM as ADM
from sdelab.nn.dit import DIT_SIZES as DIT_SIZES
from sdelab.nn.dit import DiT as DiT
from sdelab.nn.edm2_unet import EDM2_SIZES as EDM2_SIZES
from sdelab.nn.edm2_unet import EDM2UNet as EDM2UNet
from sdelab.nn.functional import Apply as Apply
from sdelab.nn.functional import as_function as as_function
from sdelab.nn.leading_channels import LeadingChannels as LeadingChannels
from sdelab.nn.log_variance import LogVariance as LogVariance
from sdelab.nn.magnitude_preserving import normalize_weights as normalize_weights
from sdelab.nn.mlp import MLP as MLP
from sdelab.nn.ncsnpp import NCSNpp as NCSNpp
from sdelab.nn.positions import NoPositions as NoPositions
from sdelab.nn.positions import RotaryPositions as RotaryPositions
from sdelab.nn.positions import SinCosPositions as SinCosPositions
from sdelab.nn.song_unet import SongUNet as SongUNet
from sdelab.nn.unet import UNet as UNet
