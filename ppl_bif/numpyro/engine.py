"""A NumPyro kernel with its data on the device, as :func:`ppl_bif.sample` drives it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl_bif.data import Batch, batches, map_arrays
from ppl_bif.numpyro.curvature import likelihood_curvature
from ppl_bif.numpyro.gradients import Data

__all__ = ["Engine"]


class Engine:
    """Compiled functions over a kernel and its data; see :class:`ppl_bif.kernel.Engine`."""

    library = "numpyro"

    def __init__(
        self, kernel: Any, data: Mapping[str, Batch], *, evaluation_batch_size: int
    ) -> None:
        self.kernel, self.model = kernel, kernel.model
        train = map_arrays(jnp.asarray, data["train"])
        self.train = Data((), train) if isinstance(train, dict) else Data(train, {})
        self.data = {
            name: [map_arrays(jnp.asarray, part) for part in batches(batch, evaluation_batch_size)]
            for name, batch in data.items()
        }
        example = next(iter(self.model.mode.values()))
        self.device = str(next(iter(example.devices())).device_kind)
        self.dtype = str(example.dtype)
        self._share = jax.jit(kernel.share)
        self._init = jax.jit(self._init_chains)
        self._advance = jax.jit(kernel.advance)
        self._score = jax.jit(jax.vmap(self.model.log_likelihood, in_axes=(0, None)))
        self._distance = jax.jit(jax.vmap(self._distance_to_mode))
        self._curvature = jax.jit(jax.vmap(kernel.curvature, in_axes=(0, None, None)))
        self._rest = jax.jit(kernel.rest)
        self._adapt = jax.jit(kernel.adapt)

    def start(self, chains: Sequence[int], seed: int, like: Any = None) -> Any:
        """Return the state of some chains at the trained weights; each has a key of its own."""
        shared = self._share(self.train) if like is None else like.shared
        state = self._init(jax.random.key(seed), jnp.array(chains), shared, self.train)
        if like is None:
            return state
        return self.with_step_size(state, np.full(len(chains), np.min(like.step_size)))

    def _init_chains(self, key: Array, chains: Array, shared: Any, train: Data) -> Any:
        keys = jax.vmap(lambda chain: jax.random.fold_in(key, chain))(chains)
        return self.kernel.start(keys, None, shared, train)

    def advance(self, state: Any, steps: int) -> Any:
        """Make one draw, so many steps on."""
        return self._advance(state, self.train, steps)

    def adapt(self, state: Any, seen: Sequence[Any]) -> Any:
        """Fit the preconditioner, if there is one, to the weights of some states."""
        if self.kernel.preconditioner is None:
            return state
        return self._adapt(state, self.train, _gathered(seen))

    def curvature(self, state: Any, seen: Sequence[Any]) -> np.ndarray:
        """Return the top curvatures at the weights of some states, preconditioned."""
        return np.asarray(self._curvature(_gathered(seen), state.shared, self.train))

    def likelihood_curvature(self) -> float:
        """Return the top eigenvalue at w* of the tempered loss's Hessian, without the prior."""
        return float(jax.jit(likelihood_curvature, static_argnums=0)(self.model, self.train))

    def with_step_size(self, state: Any, step_size: np.ndarray) -> Any:
        """Return the state with steps of these sizes, ``(chain,)``."""
        return state._replace(step_size=jnp.asarray(step_size, state.step_size.dtype))

    def stats(self, state: Any) -> dict[str, np.ndarray]:
        """Return the statistics of the draw, each ``(chain,)``."""
        values = {name: getattr(state, name) for name in self.kernel.stats}
        return {n: np.asarray(v) for n, v in values.items()} | {
            "distance": np.asarray(self._distance(state.z))
        }

    def log_likelihood(self, state: Any, name: str) -> np.ndarray:
        """Return the pointwise log-likelihoods of a group, ``(chain, row[, token])``."""
        known = self.kernel.train_log_likelihood(state) if name == "train" else None
        if known is not None:
            return np.asarray(known)
        parts = [self._score(state.z, part) for part in self.data[name]]
        return np.concatenate([np.asarray(part) for part in parts], axis=1)

    def weights(self, state: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return some of the sampled weights, each ``(chain, ...)``."""
        return {name: np.asarray(state.z[name]) for name in names}

    def _distance_to_mode(self, weights: Mapping[str, Array]) -> Array:
        squares = [jnp.sum((w - self.model.mode[name]) ** 2) for name, w in weights.items()]
        return jnp.sqrt(jnp.stack(squares).sum())


def _gathered(states: Sequence[Any]) -> dict[str, Array]:
    """Lay the weights of states side by side, ``(chain, ...)``."""
    return {name: jnp.concatenate([state.z[name] for state in states]) for name in states[0].z}
