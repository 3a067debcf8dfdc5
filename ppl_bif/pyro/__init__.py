"""The Pyro backend: localized models of PyTorch networks and their kernels."""

from ppl_bif.pyro.convert import from_pyro
from ppl_bif.pyro.gradients import ControlVariates, FullBatch, Minibatch, Partition
from ppl_bif.pyro.guide import from_guide
from ppl_bif.pyro.hmc import HMC
from ppl_bif.pyro.model import LocalizedModel, localize
from ppl_bif.pyro.preconditioners import LowRank, RMSprop
from ppl_bif.pyro.sgld import SGLD
from ppl_bif.pyro.underdamped import UnderdampedLangevin

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
    "from_pyro",
    "localize",
]
