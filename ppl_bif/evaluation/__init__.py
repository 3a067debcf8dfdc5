"""How good is an attribution? Retraining as ground truth, and what scores foretell of it."""

from ppl_bif.evaluation.datamodeling import ceiling, compare, lds
from ppl_bif.evaluation.mislabels import detection, flip_labels
from ppl_bif.evaluation.proponents import planted, retrieval
from ppl_bif.evaluation.removal import brittleness
from ppl_bif.evaluation.retraining import leave_out, random_subsets, retrain

__all__ = [
    "brittleness",
    "ceiling",
    "compare",
    "detection",
    "flip_labels",
    "lds",
    "leave_out",
    "planted",
    "random_subsets",
    "retrain",
    "retrieval",
]
