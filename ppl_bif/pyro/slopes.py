"""Derivatives of log-likelihoods at given weights: of single rows, of all, and of second order."""

from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_bif.data import Batch, batches, map_arrays, num_rows, stacked
from ppl_bif.kernel import ROWS_OF_A_GRADIENT, fewer_rows, gradients_at_once
from ppl_bif.pyro.chainwise import Chainwise, flatten, over_chains, unflatten
from ppl_bif.pyro.model import LocalizedModel
from ppl_bif.pyro.second import hessian_times

__all__ = ["Slopes"]

# As many points are moved at once as there are rows in so many gradients of one.
GRADIENTS = 4
# Gradients of rows that a CPU convolves are taken of so many at once, also where these are large.
CONVOLVED = 8


class Slopes:
    """Derivatives on the device of a model; see :class:`ppl_bif.kernel.Slopes`."""

    def __init__(self, model: LocalizedModel, data: Mapping[str, Batch]) -> None:
        self.model = model
        self._mode = {name: model.mode[name].unsqueeze(0) for name in sorted(model.mode)}
        placed = {name: map_arrays(self._place, batch) for name, batch in data.items()}
        self._train = placed["train"]
        logits = max(map(model.logits_per_row, placed.values()))
        self._size = model.rows_at_once or fewer_rows(ROWS_OF_A_GRADIENT, logits)
        self._parts = {name: list(batches(batch, self._size)) for name, batch in placed.items()}
        on_cpu = model.device.type == "cpu"
        alone = model.convolves_on_cpu
        few, self._fewer = gradients_at_once(
            model.num_weights, logits, on_cpu=on_cpu, least=CONVOLVED if alone else 1
        )
        self._few = {name: list(batches(batch, few)) for name, batch in placed.items()}
        self._row_slope = self._mapped_over_rows()
        self._slope = Chainwise(self._slope_of_loss, one_by_one=alone)
        self._image = Chainwise(self._image_of_vector, one_by_one=alone)

    @property
    def rows(self) -> int:
        """Number of training rows."""
        return num_rows(self._train)

    def log_likelihood(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return the log-likelihoods of a group's rows at some weights, ``(row,)``."""
        at = self._weights(weights)[None]
        with torch.no_grad():
            parts = [over_chains(self._scores, (at,), (part,)) for part in self._parts[name]]
        return torch.cat(parts, dim=1)[0].cpu().numpy()

    def gradients(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return the rows' gradients, means over points, ``(row, d)``."""
        return stacked(self._means(name, weights), sum(map(num_rows, self._few[name])))

    def along(self, name: str, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return products of these with directions, ``(direction, row)``."""
        towards = self._weights(directions)
        parts = [towards @ mean.T for mean in self._means(name, weights)]
        return torch.cat(parts, dim=1).cpu().numpy()

    def uphill(self, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return products of the potential's gradients with directions, ``(point, direction)``."""
        towards, found = self._weights(directions), []
        for at in self._weights(weights).split(self._points(num_rows(self._parts["train"][0]))):
            slope = self.model.precision * (at - flatten(self._mode))
            for part in self._parts["train"]:
                slope += self._slope((at,), (part,))
            found.append((slope @ towards.T).cpu().numpy())
        return np.concatenate(found)

    def hessian(self, weights: np.ndarray, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return the product with the mean Hessian over points of the tempered loss."""
        at, chosen = self._weights(weights), self._place(rows)
        scale, parts = self.rows / rows.size, chosen.split(self._size, dim=1)
        some = self._points(parts[0].shape[1])

        def product(vector: np.ndarray) -> np.ndarray:
            along = self._weights(vector)
            total = torch.zeros_like(along)
            for part in parts:
                for points, seen in zip(at.split(some), part.split(some), strict=True):
                    batch = map_arrays(itemgetter(seen), self._train)
                    total += self._image((points, batch), (along,)).sum(dim=0)
            return scale * total.cpu().numpy()

        return product

    def _place(self, array: Any) -> Tensor:
        return torch.as_tensor(array, device=self.model.device)

    def _weights(self, array: np.ndarray) -> Tensor:
        return self._place(array).to(self.model.dtype)

    def _points(self, rows: int) -> int:
        """Return how many points are moved at once, with so many rows each."""
        return max(1, GRADIENTS * self._size // rows)

    def _mapped_over_rows(self) -> Chainwise:
        """Return gradients of rows by vmap, or one by one where a network branches on data.

        Also of rows that are convolved on a CPU, vmap is the quicker.
        """
        at = flatten(self._mode)[0]
        few = map_arrays(itemgetter(slice(2)), self._train)
        try:
            over_chains(self._slope_of_row, (few,), (at,))
        except RuntimeError:
            return Chainwise(self._slope_of_row, one_by_one=True)
        return Chainwise(self._slope_of_row)

    def _means(self, name: str, weights: np.ndarray) -> Iterator[Tensor]:
        """Give the mean gradients of some rows after others, ``(row, d)``."""
        at = self._weights(weights)
        for part in self._few[name]:
            yield torch.cat([self._mean(some, at) for some in batches(part, self._fewer)])

    def _mean(self, batch: Batch, at: Tensor) -> Tensor:
        total = torch.zeros(num_rows(batch), at.shape[1], dtype=at.dtype, device=at.device)
        for point in at:
            total += self._row_slope((batch,), (point,))
        return total / len(at)

    def _slope_of_row(self, row: Batch, at: Tensor) -> Tensor:
        alone = map_arrays(lambda a: a[None], row)
        return torch.func.grad(lambda w: self._scores(w, alone).sum())(at)

    def _slope_of_loss(self, at: Tensor, batch: Batch) -> Tensor:
        return torch.func.grad(lambda w: self._loss(w, batch))(at)

    def _image_of_vector(self, at: Tensor, batch: Batch, vector: Tensor) -> Tensor:
        return hessian_times(lambda w: self._loss(w, batch), at, vector)

    def _loss(self, at: Tensor, batch: Batch) -> Tensor:
        return -self.model.inverse_temperature * self._scores(at, batch).sum()

    def _scores(self, at: Tensor, batch: Batch) -> Tensor:
        named = {name: w[0] for name, w in unflatten(at[None], self._mode).items()}
        found = self.model.log_likelihood(named, batch)
        return found.reshape(len(found), -1).sum(dim=1)
