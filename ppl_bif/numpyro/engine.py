"""A NumPyro kernel with its data on the device, as :func:`ppl_bif.sample` drives it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl_bif.data import Batch, batches, map_arrays

__all__ = ["Engine"]


class Engine:
    """Compiled functions over a kernel and its data; see :class:`ppl_bif.kernel.Engine`."""

    library = "numpyro"

    def __init__(
        self, kernel: Any, data: Mapping[str, Batch], *, evaluation_batch_size: int
    ) -> None:
        self.kernel, self.model = kernel, kernel.model
        train = map_arrays(jnp.asarray, data["train"])
        self.args, self.kwargs = ((), train) if isinstance(train, dict) else (train, {})
        self.data = {
            name: [map_arrays(jnp.asarray, part) for part in batches(batch, evaluation_batch_size)]
            for name, batch in data.items()
        }
        example = next(iter(self.model.mode.values()))
        self.device = str(next(iter(example.devices())).device_kind)
        self.dtype = str(example.dtype)
        self._init = jax.jit(self._init_chains)
        self._sample = jax.jit(kernel.sample)
        self._score = jax.jit(jax.vmap(self.model.log_likelihood, in_axes=(0, None)))
        self._distance = jax.jit(jax.vmap(self._distance_to_mode))

    def start(self, chains: Sequence[int], seed: int) -> Any:
        """Return the state of some chains at the trained weights; each has a key of its own."""
        return self._init(jax.random.key(seed), jnp.array(chains), self.args, self.kwargs)

    def _init_chains(self, key: Array, chains: Array, args: Any, kwargs: Any) -> Any:
        keys = jax.vmap(lambda chain: jax.random.fold_in(key, chain))(chains)
        return self.kernel.init(keys, 0, None, args, kwargs)

    def advance(self, state: Any) -> Any:
        """Make one draw."""
        return self._sample(state, self.args, self.kwargs)

    def stats(self, state: Any) -> dict[str, np.ndarray]:
        """Return the statistics of the draw, each ``(chain,)``."""
        values = {name: getattr(state, name) for name in self.kernel.stats}
        return {n: np.asarray(v) for n, v in values.items()} | {
            "distance": np.asarray(self._distance(state.z))
        }

    def log_likelihood(self, state: Any, name: str) -> np.ndarray:
        """Return the pointwise log-likelihoods of a group, ``(chain, row[, token])``."""
        parts = [self._score(state.z, part) for part in self.data[name]]
        return np.concatenate([np.asarray(part) for part in parts], axis=1)

    def weights(self, state: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return some of the sampled weights, each ``(chain, ...)``."""
        return {name: np.asarray(state.z[name]) for name in names}

    def suggest_step_size(self) -> float:
        """Return a step size that is stable by the curvature at the trained weights."""
        return float(self.kernel.suggest_step_size(self.args, self.kwargs))

    def _distance_to_mode(self, weights: Mapping[str, Array]) -> Array:
        squares = [jnp.sum((w - self.model.mode[name]) ** 2) for name, w in weights.items()]
        return jnp.sqrt(jnp.stack(squares).sum())
