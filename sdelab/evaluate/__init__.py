"""Numbers that say how good samples are."""

from sdelab.evaluate.classifier import LabelClassifier as LabelClassifier
from sdelab.evaluate.distances import energy_distance as energy_distance
from sdelab.evaluate.distances import sliced_wasserstein as sliced_wasserstein
from sdelab.evaluate.draw import draw as draw
from sdelab.evaluate.report import held_out_bits as held_out_bits
from sdelab.evaluate.report import held_out_rows as held_out_rows
from sdelab.evaluate.report import label_agreement as label_agreement
from sdelab.evaluate.report import sample_distances as sample_distances
