"""Data sets, their scaling, and batches as a pure function of seed and step."""

from sdelab.data.batches import Batches as Batches
from sdelab.data.cifar10 import load_cifar10 as load_cifar10
from sdelab.data.dataset import Dataset as Dataset
from sdelab.data.digits import load_digits as load_digits
from sdelab.data.idx import read_idx as read_idx
from sdelab.data.mnist import load_mnist as load_mnist
from sdelab.data.mnist import load_mnist32 as load_mnist32
from sdelab.data.prefetch import Prefetch as Prefetch
from sdelab.data.registry import load_dataset as load_dataset
from sdelab.data.scaling import AbstractScaling as AbstractScaling
from sdelab.data.scaling import GreyLevels as GreyLevels
from sdelab.data.scaling import Unscaled as Unscaled
from sdelab.data.toy import EIGHT_GAUSSIANS_MEANS as EIGHT_GAUSSIANS_MEANS
from sdelab.data.toy import EIGHT_GAUSSIANS_STD as EIGHT_GAUSSIANS_STD
from sdelab.data.toy import load_checkerboard as load_checkerboard
from sdelab.data.toy import load_eight_gaussians as load_eight_gaussians
from sdelab.data.toy import load_rings as load_rings
from sdelab.data.toy import load_spiral as load_spiral
from sdelab.data.toy import load_two_moons as load_two_moons
