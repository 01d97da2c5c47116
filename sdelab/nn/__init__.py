"""Networks, in Flax NNX, and the way from a module to a pure function of its parameters.

A network is called `(x, c_noise, condition=None, keys=None)`, with one noise label per sample, and returns float32.
"""

from sdelab.nn.adm import ADM as ADM
from sdelab.nn.functional import Apply as Apply
from sdelab.nn.functional import as_function as as_function
from sdelab.nn.leading_channels import LeadingChannels as LeadingChannels
from sdelab.nn.mlp import MLP as MLP
from sdelab.nn.ncsnpp import NCSNpp as NCSNpp
from sdelab.nn.song_unet import SongUNet as SongUNet
from sdelab.nn.unet import UNet as UNet
