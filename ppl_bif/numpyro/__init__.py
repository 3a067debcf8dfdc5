"""The NumPyro backend: localized models of JAX networks and their kernels."""

from ppl_bif.numpyro.gradients import ControlVariates, FullBatch, Minibatch, Partition
from ppl_bif.numpyro.guide import from_guide
from ppl_bif.numpyro.hmc import HMC
from ppl_bif.numpyro.model import LocalizedModel, localize
from ppl_bif.numpyro.preconditioners import LowRank, RMSprop
from ppl_bif.numpyro.sgld import SGLD
from ppl_bif.numpyro.underdamped import UnderdampedLangevin

__all__ = [
    "HMC",
    "SGLD",
    "ControlVariates",
    "FullBatch",
    "LocalizedModel",
    "LowRank",
    "Minibatch",
    "Partition",
    "RMSprop",
    "UnderdampedLangevin",
    "from_guide",
    "localize",
]
