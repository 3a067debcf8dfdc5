"""Our scores in dattri's harness: an attributor that answers with them, and our retrainings."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from dattri.algorithm.base import BaseAttributor
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler

from ppl_bif.evaluation.tables import outcomes, table

__all__ = ["BIFAttributor", "ground_truth"]


class BIFAttributor(BaseAttributor):
    """Scores that are there already, as an attributor of dattri.

    Parameters
    ----------
    scores
        What :func:`ppl_bif.influence` gave, or an array ``(query, train)``, in the order of the
        loaders, which must not shuffle. dattri's sign is ours: larger is more helpful to the query.

    Raises
    ------
    ValueError
        If scores are not finite, or a loader has other rows, or has them in random order.
    """

    def __init__(self, scores: Any) -> None:
        self._scores = table(scores)

    def cache(self, full_train_dataloader: DataLoader) -> None:
        """Check that the loader has the rows of the scores."""
        _check(full_train_dataloader, self._scores.shape[1], "training")

    def attribute(self, train_dataloader: DataLoader, test_dataloader: DataLoader) -> Tensor:
        """Return the scores ``(train, query)``."""
        _check(train_dataloader, self._scores.shape[1], "training")
        _check(test_dataloader, self._scores.shape[0], "query")
        return torch.from_numpy(self._scores.T.copy())


def ground_truth(truth: xr.Dataset, *, output: str = "loss") -> tuple[Tensor, Tensor]:
    """Return retrainings as dattri's ``lds`` takes them.

    Parameters
    ----------
    truth
        What :func:`ppl_bif.evaluation.retrain` gave, with subsets of one size.
    output
        Of the truth; of a loss, minus its values, so that larger is better.

    Returns
    -------
    values, rows
        ``(subset, query)``, mean over seeds; and ``(subset, row of the subset)``.

    Raises
    ------
    ValueError
        If subsets differ in size, the truth has no such output, or it is not finite.
    """
    masks = truth["mask"].transpose("subset", "train").values
    sizes = masks.sum(axis=1)
    if len(set(sizes.tolist())) > 1:
        raise ValueError(f"dattri takes subsets of one size; got {sorted(set(sizes.tolist()))}")
    rows = np.stack([np.flatnonzero(mask) for mask in masks])
    return torch.from_numpy(outcomes(truth, output)), torch.from_numpy(rows)


def _check(loader: DataLoader, rows: int, name: str) -> None:
    samplers = (loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    if any(isinstance(sampler, RandomSampler | SubsetRandomSampler) for sampler in samplers):
        raise ValueError(
            f"the {name} loader shuffles, and scores are in the order of its rows: pass a loader "
            "with shuffle=False"
        )
    found = len(loader.sampler)
    if found != rows:
        raise ValueError(f"the scores have {rows} {name} rows, the loader {found}")
