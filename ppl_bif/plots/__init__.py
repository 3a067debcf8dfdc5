"""Pictures of runs: what influences a query most, what is learned when, whether to trust them.

Matplotlib is imported when a figure is made, never before, and without pyplot: no backend is
chosen and no figure is kept behind the caller's back.
"""

from ppl_bif.plots.diagnostics import plot_diagnosis
from ppl_bif.plots.embedding import plot_embedding
from ppl_bif.plots.quality import plot_lds
from ppl_bif.plots.top import plot_top
from ppl_bif.plots.trajectory import plot_over_checkpoints

__all__ = ["plot_diagnosis", "plot_embedding", "plot_lds", "plot_over_checkpoints", "plot_top"]
