"""Published checkpoints as runs of ours, and the weights of our runs as safetensors.

Files are read without the frameworks that wrote them, and nothing in them is executed.
"""

from sdelab.interop.importing import FAMILIES as FAMILIES
from sdelab.interop.importing import ImportedRun as ImportedRun
from sdelab.interop.importing import import_checkpoint as import_checkpoint
from sdelab.interop.inert import InertModule as InertModule
from sdelab.interop.inert import UnsafePickle as UnsafePickle
from sdelab.interop.pickled import UnreadableCheckpoint as UnreadableCheckpoint
from sdelab.interop.published import Published as Published
from sdelab.interop.published import read_edm as read_edm
from sdelab.interop.published import read_score_sde_flax as read_score_sde_flax
from sdelab.interop.published import read_score_sde_torch as read_score_sde_torch
from sdelab.interop.safetensors_file import read_safetensors as read_safetensors
from sdelab.interop.safetensors_file import write_safetensors as write_safetensors
from sdelab.interop.torch_file import read_torch as read_torch
