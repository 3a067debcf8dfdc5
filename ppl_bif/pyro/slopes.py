"""Derivatives of log-likelihoods at given weights: of single rows, of all, and of second order."""

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_bif.data import Batch, batches, map_arrays, num_rows
from ppl_bif.kernel import gradients_at_once
from ppl_bif.pyro.chainwise import Chainwise, flatten, over_chains, unflatten
from ppl_bif.pyro.model import LocalizedModel

__all__ = ["Slopes"]


class Slopes:
    """Derivatives on the device of a model; see :class:`ppl_bif.kernel.Slopes`."""

    def __init__(self, model: LocalizedModel, data: Mapping[str, Batch]) -> None:
        self.model = model
        self._mode = {name: model.mode[name].unsqueeze(0) for name in sorted(model.mode)}
        placed = {name: map_arrays(self._place, batch) for name, batch in data.items()}
        self._train = placed["train"]
        logits = max(map(model.logits_per_row, placed.values()))
        self._size = gradients_at_once(model.num_weights, logits)
        self._parts = {name: list(batches(batch, self._size)) for name, batch in placed.items()}
        alone = model.convolves_on_cpu
        # Of rows that are convolved, vmap is quicker than one after another; of weights it is not.
        self._row_slope = Chainwise(self._slope_of_row)
        self._slope = Chainwise(self._slope_of_loss, one_by_one=alone)
        self._image = Chainwise(self._image_of_vector, one_by_one=alone)

    def log_likelihood(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return the log-likelihoods of a group's rows at some weights, ``(row,)``."""
        at = self._weights(weights)[None]
        with torch.no_grad():
            parts = [over_chains(self._scores, (at,), (part,)) for part in self._parts[name]]
        return torch.cat(parts, dim=1)[0].cpu().numpy()

    def gradients(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return the rows' gradients, means over points, ``(row, d)``."""
        return np.concatenate([mean.cpu().numpy() for mean in self._means(name, weights)])

    def along(self, name: str, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return products of these with directions, ``(direction, row)``."""
        towards = self._weights(directions)
        parts = [towards @ mean.T for mean in self._means(name, weights)]
        return torch.cat(parts, dim=1).cpu().numpy()

    def uphill(self, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return products of the potential's gradients with directions, ``(point, direction)``."""
        at, towards = self._weights(weights), self._weights(directions)
        slope = self.model.precision * (at - flatten(self._mode))
        for part in self._parts["train"]:
            slope += self._slope((at,), (part,))
        return (slope @ towards.T).cpu().numpy()

    def curved(self, weights: np.ndarray, rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """Return the mean image of a vector under the tempered loss's Hessians, ``(d,)``."""
        at, along = self._weights(weights), self._weights(vector)
        some = max(1, self._size // rows.shape[1])
        total = torch.zeros_like(along)
        for points, chosen in zip(at.split(some), self._place(rows).split(some), strict=True):
            seen = map_arrays(itemgetter(chosen), self._train)
            total += self._image((points, seen), (along,)).sum(dim=0)
        scale = num_rows(self._train) / rows.size
        return scale * total.cpu().numpy()

    def _place(self, array: Any) -> Tensor:
        return torch.as_tensor(array, device=self.model.device)

    def _weights(self, array: np.ndarray) -> Tensor:
        return self._place(array).to(self.model.dtype)

    def _means(self, name: str, weights: np.ndarray) -> Iterator[Tensor]:
        """Give the mean gradients of some rows after others, ``(row, d)``."""
        at = self._weights(weights)
        for part in self._parts[name]:
            total = torch.zeros(num_rows(part), at.shape[1], dtype=at.dtype, device=at.device)
            for point in at:
                total += self._row_slope((part,), (point,))
            yield total / len(at)

    def _slope_of_row(self, row: Batch, at: Tensor) -> Tensor:
        alone = map_arrays(lambda a: a[None], row)
        return torch.func.grad(lambda w: self._scores(w, alone).sum())(at)

    def _slope_of_loss(self, at: Tensor, batch: Batch) -> Tensor:
        beta = self.model.inverse_temperature
        return torch.func.grad(lambda w: -beta * self._scores(w, batch).sum())(at)

    def _image_of_vector(self, at: Tensor, batch: Batch, vector: Tensor) -> Tensor:
        return torch.func.grad(lambda w: self._slope_of_loss(w, batch) @ vector)(at)

    def _scores(self, at: Tensor, batch: Batch) -> Tensor:
        named = {name: w[0] for name, w in unflatten(at[None], self._mode).items()}
        found = self.model.log_likelihood(named, batch)
        return found.reshape(len(found), -1).sum(dim=1)
