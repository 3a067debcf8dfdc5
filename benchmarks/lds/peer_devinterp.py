"""Bayesian influence functions by devinterp, over a handful of its sampler's settings."""

import time
import warnings
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.lds.networks import trained
from benchmarks.lds.result import Result
from benchmarks.lds.tasks import Task

SEED, BATCH = 100, 32


class Setting(NamedTuple):
    """Arguments of devinterp's ``sample``; the rest stays at its defaults."""

    lr: float
    n_beta: float
    localization: float
    num_steps_bw_draws: int = 1
    num_burnin_steps: int = 0
    num_draws: int = 250
    sampling_method: str = "rmsprop_sgld"
    num_chains: int = 4
    batch_size: int = BATCH


def scores(task: Task, networks: int) -> Iterator[Result]:
    raise NotImplementedError
