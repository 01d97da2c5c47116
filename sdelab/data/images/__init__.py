"""Images in files: decoding, fitting to a size, class folders and EDM's `dataset.json`."""

from sdelab.data.images.fit import AbstractFit as AbstractFit
from sdelab.data.images.fit import CenterCrop as CenterCrop
from sdelab.data.images.fit import CenterCropADM as CenterCropADM
from sdelab.data.images.fit import Exact as Exact
from sdelab.data.images.fit import Stretch as Stretch
from sdelab.data.images.image_files import ImageFiles as ImageFiles
from sdelab.data.images.loading import load_images as load_images
