"""A Pyro kernel with its data on the device, as :func:`ppl_bif.sample` drives it."""

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ppl_bif.data import Batch, batches, map_arrays
from ppl_bif.kernel import CONVOLVED_AT_ONCE, ROWS_AT_ONCE, Draws, fewer_rows
from ppl_bif.pyro.chainwise import Chainwise
from ppl_bif.pyro.curvature import likelihood_curvature
from ppl_bif.pyro.gradients import Data, at_mode
from ppl_bif.pyro.locality import rise_at_prior
from ppl_bif.pyro.packing import pack, unpack

__all__ = ["Engine"]


class Engine:
    """Functions over a kernel and its data; see :class:`ppl_bif.kernel.Engine`."""

    library = "pyro"

    def __init__(
        self, kernel: Any, data: Mapping[str, Batch], *, evaluation_batch_size: int | None
    ) -> None:
        self.kernel, self.model = kernel, kernel.model
        self.model.check_kernel(kernel)
        self._device = self.model.device
        self.device = _name_of(self._device)
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        convolves = self.model.convolves_on_cpu
        self._score = Chainwise(self.model.log_likelihood, one_by_one=convolves)
        placed = {name: map_arrays(self._place, batch) for name, batch in data.items()}
        if convolves and self._takes_channels_last(placed["train"]):
            placed = {name: map_arrays(_channels_last, batch) for name, batch in placed.items()}
        self.train = Data.of(placed["train"])
        usual = CONVOLVED_AT_ONCE if convolves else ROWS_AT_ONCE
        self.rows_at_once = evaluation_batch_size or fewer_rows(
            usual, max(map(self.model.logits_per_row, placed.values()))
        )
        self.data = {
            name: list(batches(batch, self.rows_at_once)) for name, batch in placed.items()
        }

    def over(self, parts: Mapping[str, slice]) -> "Engine":
        """Return the same engine, which scores some rows of some groups: whole batches."""
        other, size = copy(self), self.rows_at_once
        other.data = {
            name: self.data[name][rows.start // size : -(-rows.stop // size)]
            for name, rows in parts.items()
        }
        return other

    def resolved(self, localization: float) -> "Engine":
        """Return the same engine, whose model has this localization."""
        other = copy(self)
        other.kernel = self.kernel.on(self.model.resolve(localization))
        other.model = other.kernel.model
        return other

    def _place(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self._device)

    @torch.no_grad()
    def _takes_channels_last(self, batch: Batch) -> bool:
        """Try a row: a network that calls ``view`` on what a convolution gives may not."""
        try:
            with pyro.validation_enabled(False):
                few = map_arrays(lambda a: _channels_last(a[:2]), batch)
                self.model.log_likelihood(self.model.mode, few)
        except RuntimeError:
            return False
        return True

    def start(self, chains: Sequence[int], seed: int, like: Any = None) -> Any:
        """Return the state of some chains at the trained weights, with a generator of their own."""
        words = np.random.SeedSequence([seed, *chains]).generate_state(1, np.uint64)
        generator = torch.Generator(self._device).manual_seed(int(words[0]))
        weights = {name: w.clone() for name, w in at_mode(self.model, len(chains)).items()}
        shared = self.kernel.share(self.train) if like is None else like.shared
        state = self.kernel.start(generator, weights, shared, self.train)
        if like is None:
            return state
        return self.with_step_size(state, np.full(len(chains), float(like.step_size.min())))

    def advance(self, state: Any, steps: int, *, keep: bool = False) -> Any:
        """Make one draw, so many steps on."""
        if keep:
            state = state._replace(z={name: w.clone() for name, w in state.z.items()})
        return self.kernel.advance(state, self.train, steps)

    @torch.no_grad()
    def draws(
        self, state: Any, steps: int, count: int, *, most: int, names: Sequence[str]
    ) -> tuple[Any, Draws]:
        """Make and score draws, so many steps apart; they come to the host together."""
        kept: list[Tensor] = []
        for i in range(count):
            state = self.kernel.advance(state, self.train, steps)
            seen, structure = pytree.tree_flatten(self._observe(state, names))
            kept = kept or [_room(value, count) for value in seen]
            for place, value in zip(kept, seen, strict=True):
                place[:, i] = value
        return state, pytree.tree_unflatten([t.cpu().numpy() for t in kept], structure)

    def _observe(self, state: Any, names: Sequence[str]) -> Draws:
        likelihood = {name: self._likelihood(state, name) for name in self.data}
        return Draws(likelihood, self._stats(state), {name: state.z[name] for name in names})

    def adapt(self, state: Any, seen: Sequence[Any]) -> Any:
        """Fit the preconditioner, if there is one, to the weights of some states."""
        if self.kernel.preconditioner is None:
            return state
        return self.kernel.adapt(state, self.train, _gathered(seen))

    def curvature(self, state: Any, seen: Sequence[Any]) -> np.ndarray:
        """Return the top curvatures at the weights of some states, preconditioned."""
        return self.kernel.curvature(_gathered(seen), state.shared, self.train).cpu().numpy()

    @cached_property
    def likelihood_curvature(self) -> float:
        """Return the top eigenvalue at w* of the tempered loss's Hessian, without the prior."""
        return float(likelihood_curvature(self.model, self.train))

    def rise_at_prior(self, localization: float) -> float:
        """Return by how much draws of such a prior raise the loss of a target, in nats."""
        return float(rise_at_prior(self.model, self.train, localization))

    @torch.no_grad()
    def at_mode(self, name: str) -> np.ndarray:
        """Return the pointwise log-likelihoods of a group at w*, ``(row[, token])``."""
        return self._scored(at_mode(self.model), name)[0].cpu().numpy()

    def with_step_size(self, state: Any, step_size: np.ndarray) -> Any:
        """Return the state with steps of these sizes, ``(chain,)``."""
        return state._replace(step_size=torch.as_tensor(step_size).to(state.step_size))

    def step_size(self, state: Any) -> np.ndarray:
        """Return the sizes of the steps, ``(chain,)``."""
        return state.step_size.cpu().numpy()

    def stats(self, state: Any) -> dict[str, np.ndarray]:
        """Return the statistics of the draw, each ``(chain,)``."""
        return {name: value.cpu().numpy() for name, value in self._stats(state).items()}

    def _stats(self, state: Any) -> dict[str, Tensor]:
        squares = [
            (w - self.model.mode[name]).reshape(len(w), -1).square().sum(1)
            for name, w in state.z.items()
        ]
        values = {name: getattr(state, name) for name in self.kernel.stats}
        return {**values, "distance": self.model.total(torch.stack(squares).sum(0)).sqrt()}

    @torch.no_grad()
    def log_likelihood(self, state: Any, name: str) -> np.ndarray:
        """Return the pointwise log-likelihoods of a group, ``(chain, row[, token])``."""
        return self._likelihood(state, name).cpu().numpy()

    def _likelihood(self, state: Any, name: str) -> Tensor:
        known = self.kernel.train_log_likelihood(state) if name == "train" else None
        return self._scored(state.z, name) if known is None else known

    def _scored(self, weights: Mapping[str, Tensor], name: str) -> Tensor:
        weights = self.model.cast(weights)
        parts = [self._score((weights,), (part,)) for part in self.data[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def without_weights(self, state: Any) -> Any:
        """Return what ``start`` takes of a state, so that its weights can be let go."""
        return state._replace(z={}, moving=())

    def pack(self, state: Any, *, shared: bool) -> dict[str, np.ndarray]:
        """Return a state as arrays by name, with what chains share if asked for."""
        return pack(state, shared=shared)

    def unpack(self, arrays: Mapping[str, np.ndarray], like: Any) -> Any:
        """Return the state that was packed; ``like`` gives its structure, and what is not there."""
        return unpack(arrays, like)


def _channels_last(array: Tensor) -> Tensor:
    # Not `contiguous`, which leaves the strides of one channel as they are.
    return array.to(memory_format=torch.channels_last) if array.ndim == 4 else array


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _room(value: Tensor, count: int) -> Tensor:
    """Make room for so many draws of a tensor ``(chain, ...)``."""
    return value.new_empty(len(value), count, *value.shape[1:])


def _gathered(states: Sequence[Any]) -> dict[str, Tensor]:
    """Lay the weights of states side by side, ``(chain, ...)``."""
    return {name: torch.cat([state.z[name] for state in states]) for name in states[0].z}
