"""Pictures of runs: what influences a query most, what is learned when, whether to trust them.

Matplotlib and arviz-plots are imported when a figure is made, never before. Figures of Matplotlib
are made without pyplot: no backend is chosen and none is kept behind the caller's back. A
PlotCollection, which can also be of Plotly or Bokeh, is made as arviz-plots does, with pyplot.
"""

from ppl_bif.plots.convergence import plot_convergence
from ppl_bif.plots.diagnostics import plot_diagnosis
from ppl_bif.plots.embedding import plot_embedding
from ppl_bif.plots.forest import plot_forest
from ppl_bif.plots.heatmap import plot_heatmap
from ppl_bif.plots.quality import plot_lds
from ppl_bif.plots.top import plot_top
from ppl_bif.plots.trajectory import plot_over_checkpoints

__all__ = [
    "plot_convergence",
    "plot_diagnosis",
    "plot_embedding",
    "plot_forest",
    "plot_heatmap",
    "plot_lds",
    "plot_over_checkpoints",
    "plot_top",
]
