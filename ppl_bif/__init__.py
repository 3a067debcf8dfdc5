"""Bayesian influence functions for Pyro and NumPyro: which training example taught this?

Names are loaded when first used, so that importing the package is quick and loads neither
PyTorch nor JAX.
"""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppl_bif.costs import forecast
    from ppl_bif.diagnostics import diagnose
    from ppl_bif.errors import BIFError, DivergenceError, StoreError
    from ppl_bif.explorer import write_explorer
    from ppl_bif.growth import over_draws
    from ppl_bif.jackknifing import jackknife
    from ppl_bif.learning import learning_coefficient
    from ppl_bif.plots import (
        plot_convergence,
        plot_diagnosis,
        plot_embedding,
        plot_forest,
        plot_heatmap,
        plot_lds,
        plot_over_checkpoints,
        plot_top,
    )
    from ppl_bif.ranking import top
    from ppl_bif.refining import refine
    from ppl_bif.report import write_report
    from ppl_bif.reweighting import reweight
    from ppl_bif.sampling import sample
    from ppl_bif.scores import influence
    from ppl_bif.similarity import loss_kernel
    from ppl_bif.store import open_store
    from ppl_bif.susceptibilities import susceptibility
    from ppl_bif.trajectory import over_checkpoints
    from ppl_bif.weights import save_draw

__version__ = _version("ppl_bif")

_HOME = {
    "BIFError": "errors",
    "DivergenceError": "errors",
    "StoreError": "errors",
    "diagnose": "diagnostics",
    "forecast": "costs",
    "influence": "scores",
    "jackknife": "jackknifing",
    "learning_coefficient": "learning",
    "loss_kernel": "similarity",
    "open_store": "store",
    "over_checkpoints": "trajectory",
    "over_draws": "growth",
    "plot_convergence": "plots",
    "plot_diagnosis": "plots",
    "plot_embedding": "plots",
    "plot_forest": "plots",
    "plot_heatmap": "plots",
    "plot_lds": "plots",
    "plot_over_checkpoints": "plots",
    "plot_top": "plots",
    "refine": "refining",
    "reweight": "reweighting",
    "sample": "sampling",
    "save_draw": "weights",
    "susceptibility": "susceptibilities",
    "top": "ranking",
    "write_explorer": "explorer",
    "write_report": "report",
}

__all__ = [
    "BIFError",
    "DivergenceError",
    "StoreError",
    "diagnose",
    "forecast",
    "influence",
    "jackknife",
    "learning_coefficient",
    "loss_kernel",
    "open_store",
    "over_checkpoints",
    "over_draws",
    "plot_convergence",
    "plot_diagnosis",
    "plot_embedding",
    "plot_forest",
    "plot_heatmap",
    "plot_lds",
    "plot_over_checkpoints",
    "plot_top",
    "refine",
    "reweight",
    "sample",
    "save_draw",
    "susceptibility",
    "top",
    "write_explorer",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ppl_bif' has no attribute {name!r}")
    return getattr(import_module(f"ppl_bif.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
