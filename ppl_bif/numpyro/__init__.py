"""The NumPyro backend: localized models of JAX networks and their kernels."""

from ppl_bif.numpyro.model import LocalizedModel, localize
from ppl_bif.numpyro.sgld import SGLD, SGLDState

__all__ = ["SGLD", "LocalizedModel", "SGLDState", "localize"]
