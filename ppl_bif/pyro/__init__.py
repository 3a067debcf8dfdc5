"""The Pyro backend: localized models of PyTorch networks and their kernels."""

from ppl_bif.pyro.convert import from_pyro
from ppl_bif.pyro.model import LocalizedModel, localize
from ppl_bif.pyro.sgld import SGLD, SGLDState

__all__ = ["SGLD", "LocalizedModel", "SGLDState", "from_pyro", "localize"]
