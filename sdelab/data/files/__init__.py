"""Files of a data set, in whatever they are packed."""

from sdelab.data.files.base import AbstractFiles as AbstractFiles
from sdelab.data.files.folder import FolderFiles as FolderFiles
from sdelab.data.files.opening import open_files as open_files
from sdelab.data.files.tar import TarFiles as TarFiles
from sdelab.data.files.zip import ZipFiles as ZipFiles
