"""Numbers that say how good samples are."""

from sdelab.evaluate.batched import PATIENCE as PATIENCE
from sdelab.evaluate.batched import Work as Work
from sdelab.evaluate.batched import complete as complete
from sdelab.evaluate.classifier import LabelClassifier as LabelClassifier
from sdelab.evaluate.distances import energy_distance as energy_distance
from sdelab.evaluate.distances import sliced_wasserstein as sliced_wasserstein
from sdelab.evaluate.draw import draw as draw
from sdelab.evaluate.draw import sampling as sampling
from sdelab.evaluate.parts import AbstractParts as AbstractParts
from sdelab.evaluate.parts import InMemory as InMemory
from sdelab.evaluate.parts import ShardMismatch as ShardMismatch
from sdelab.evaluate.parts import Shards as Shards
from sdelab.evaluate.parts import TornShard as TornShard
from sdelab.evaluate.parts import write_npz as write_npz
from sdelab.evaluate.report import code_lengths as code_lengths
from sdelab.evaluate.report import held_out_bits as held_out_bits
from sdelab.evaluate.report import held_out_rows as held_out_rows
from sdelab.evaluate.report import label_agreement as label_agreement
from sdelab.evaluate.report import sample_distances as sample_distances
