"""How good is an attribution? Retraining as ground truth, and what scores foretell of it."""

from ppl_bif.evaluation.lds import ceiling, compare, lds
from ppl_bif.evaluation.retraining import leave_out, random_subsets, retrain

__all__ = ["ceiling", "compare", "lds", "leave_out", "random_subsets", "retrain"]
