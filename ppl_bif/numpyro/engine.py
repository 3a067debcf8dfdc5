"""A NumPyro kernel with its data on the device, as :func:`ppl_bif.sample` drives it."""

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property, partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl_bif.data import Batch, map_arrays, num_rows
from ppl_bif.kernel import CONVOLVED_AT_ONCE, ROWS_AT_ONCE, Draws, fewer_rows
from ppl_bif.numpyro import outside
from ppl_bif.numpyro.alike import Alike
from ppl_bif.numpyro.gradients import Data
from ppl_bif.numpyro.locality import rise_at_prior
from ppl_bif.numpyro.model import Held
from ppl_bif.numpyro.packing import pack, unpack

__all__ = ["Engine"]


class Engine:
    """Compiled functions over a kernel and its data; see :class:`ppl_bif.kernel.Engine`."""

    library = "numpyro"

    def __init__(
        self, kernel: Any, data: Mapping[str, Batch], *, evaluation_batch_size: int | None
    ) -> None:
        self.kernel, self.model, self._held = kernel, kernel.model, kernel.model.held
        self._program = Alike(kernel)
        self._place = partial(jax.device_put, device=self.model.data_place)
        self.data = {name: map_arrays(self._place, batch) for name, batch in data.items()}
        self.train = Data.of(self.data["train"])
        on_cpu = outside.on_cpu(self.model)
        self._convolves = on_cpu and outside.convolves(self.model, self.data["train"])
        self._outside = self._convolves or (on_cpu and outside.is_large(kernel))
        usual = CONVOLVED_AT_ONCE if self._convolves else ROWS_AT_ONCE
        self.rows_at_once = evaluation_batch_size or fewer_rows(
            usual, max(map(self.model.logits_per_row, self.data.values()))
        )
        self.device = str(self.model.device.device_kind)
        self.dtype = str(self.model.dtype)

    def over(self, parts: Mapping[str, slice]) -> "Engine":
        """Return the same engine, which scores some rows of some groups: whole batches."""
        other = copy(self)
        other.data = {
            name: map_arrays(itemgetter(rows), self.data[name]) for name, rows in parts.items()
        }
        return other

    def resolved(self, localization: float) -> "Engine":
        """Return the same engine, whose model has this localization."""
        other = copy(self)
        other.kernel = self.kernel.on(self.model.resolve(localization))
        other.model = other.kernel.model
        other._program, other._held = Alike(other.kernel), other.model.held
        return other

    def start(self, chains: Sequence[int], seed: int, like: Any = None) -> Any:
        """Return the state of some chains at the trained weights; each has a key of its own."""
        shared = self._share() if like is None else like.shared
        keys, weights = self._unmoved(chains, seed)
        state = _start(self._program, self._held, keys, weights, shared, self.train)
        if like is None:
            return state
        return self.with_step_size(state, np.full(len(chains), np.min(like.step_size)))

    def _unmoved(self, chains: Sequence[int], seed: int) -> tuple[Array, dict[str, Array]]:
        # Placed as what programs return: of what is not, each would be compiled once more.
        key, numbers = self._place(jax.random.key(seed)), self._place(np.asarray(chains))
        return _unmoved(self.model.mode, key, numbers)

    def _share(self) -> Any:
        shared = _share(self._program, self._held, self.train)
        return shared._replace(root=self._place(shared.root))

    def advance(self, state: Any, steps: int, *, keep: bool = False) -> Any:
        """Make one draw, so many steps on."""
        if self._outside:
            if keep:
                z, moving = jax.tree.map(jnp.copy, (state.z, state.moving))
                state = state._replace(z=z, moving=moving)
            return outside.advance(self._program, self._held, state, self.train, steps)
        return _advance(self._program, self._held, state, self.train, steps)

    def draws(
        self, state: Any, steps: int, count: int, *, most: int, names: Sequence[str]
    ) -> tuple[Any, Draws]:
        """Make and score draws, so many steps apart: one compiled program where that is quick."""
        if self._outside:
            return self._draws_outside(state, steps, count, names)
        own, lasting = state._replace(shared=None, step_size=None), (state.shared, state.step_size)
        state, kept = _draws(
            self._program,
            self._held,
            own,
            *lasting,
            self.train,
            self.data,
            steps,
            count,
            most=most,
            names=tuple(names),
            rows_at_once=self.rows_at_once,
        )
        state = state._replace(shared=lasting[0], step_size=lasting[1])
        return state, jax.tree.map(lambda a: np.asarray(a)[:, :count], kept)

    def _draws_outside(
        self, state: Any, steps: int, count: int, names: Sequence[str]
    ) -> tuple[Any, Draws]:
        kept = []
        for _ in range(count):
            state = outside.advance(self._program, self._held, state, self.train, steps)
            likelihood = {name: self._likelihood(state, name) for name in self.data}
            stats = _stats(self._program, self._held, state)
            kept.append(Draws(likelihood, stats, {name: state.z[name] for name in names}))
        return state, jax.tree.map(lambda *each: np.stack(each, axis=1), *kept)

    def adapt(self, state: Any, seen: Sequence[Any]) -> Any:
        """Fit the preconditioner, if there is one, to the weights of some states."""
        if self.kernel.preconditioner is None:
            return state
        program, held, train = self._program, self._held, self.train
        root = _fit(program, held, state.i[0], train, _gathered(seen))
        shared = state.shared._replace(root=root)
        return state.moved_as(_start(program, held, state.rng_key, state.z, shared, train))

    def curvature(self, state: Any, seen: Sequence[Any]) -> np.ndarray:
        """Return the top curvatures at the weights of some states, preconditioned."""
        root = state.shared.root
        return np.array(
            [
                _curvature(self._program, self._held, _of(one.z, chain), root, self.train)
                for one in seen
                for chain in range(len(one.i))
            ]
        )

    @cached_property
    def likelihood_curvature(self) -> float:
        """Return the top eigenvalue at w* of the tempered loss's Hessian, without the prior."""
        # Any precision of the prior will do, which moves every eigenvalue alike; the same for all,
        # so that a localization that was found and one that is given end in the same steps.
        model = self.model.resolve(1.0)
        root = self._place(self.kernel.identity())
        _, alone = self._unmoved([0], seed=0)
        top = _curvature(self._program, model.held, _of(alone, 0), root, self.train)
        return float(top) - model.precision

    def rise_at_prior(self, localization: float) -> float:
        """Return by how much draws of such a prior raise the loss of a target, in nats."""
        return float(_rise_at_prior(Alike(self.model), self._held, self.train, localization))

    def at_mode(self, name: str) -> np.ndarray:
        """Return the pointwise log-likelihoods of a group at w*, ``(row[, token])``."""
        _, alone = self._unmoved([0], seed=0)
        return np.asarray(self._scored(alone, name)[0])

    def with_step_size(self, state: Any, step_size: np.ndarray) -> Any:
        """Return the state with steps of these sizes, ``(chain,)``."""
        known = state.step_size
        sizes = jax.device_put(np.asarray(step_size, known.dtype), known.sharding)
        return state._replace(step_size=sizes)

    def step_size(self, state: Any) -> np.ndarray:
        """Return the sizes of the steps, ``(chain,)``."""
        return np.asarray(state.step_size)

    def stats(self, state: Any) -> dict[str, np.ndarray]:
        """Return the statistics of the draw, each ``(chain,)``."""
        return jax.tree.map(np.asarray, _stats(self._program, self._held, state))

    def log_likelihood(self, state: Any, name: str) -> np.ndarray:
        """Return the pointwise log-likelihoods of a group, ``(chain, row[, token])``."""
        return np.asarray(self._likelihood(state, name))

    def _likelihood(self, state: Any, name: str) -> Array:
        known = self.kernel.train_log_likelihood(state) if name == "train" else None
        return self._scored(state.z, name) if known is None else known

    def _scored(self, weights: Mapping[str, Array], name: str) -> Array:
        score = outside.score if self._convolves else _score
        return score(Alike(self.model), self._held, weights, self.data[name], self.rows_at_once)

    def without_weights(self, state: Any) -> Any:
        """Return what ``start`` takes of a state, so that its weights can be let go."""
        return state._replace(z={}, moving=())

    def pack(self, state: Any, *, shared: bool) -> dict[str, np.ndarray]:
        """Return a state as arrays by name, with what chains share if asked for."""
        return pack(state, shared=shared)

    def unpack(self, arrays: Mapping[str, np.ndarray], like: Any) -> Any:
        """Return the state that was packed; ``like`` gives its structure, and what is not there."""
        return unpack(arrays, like)


# Compiled once for kernels that are alike, however often they are bound: a kernel is static, data
# are not. The trained weights are arguments too: as constants each program would have a copy.


def _with(kernel: Alike, held: Held) -> Any:
    return kernel.of.on(kernel.of.model.holding(held))


@partial(jax.jit, static_argnums=0)
def _share(kernel: Alike, held: Held, train: Data) -> Any:
    return _with(kernel, held).share(train)


@jax.jit
def _unmoved(mode: dict[str, Array], key: Array, chains: Array) -> tuple[Array, dict[str, Array]]:
    """Return a key for each chain, and weights that are w*."""
    keys = jax.vmap(lambda chain: jax.random.fold_in(key, chain))(chains)
    return keys, {name: jnp.broadcast_to(w, (len(chains), *w.shape)) for name, w in mode.items()}


@partial(jax.jit, static_argnums=0)
def _start(kernel: Alike, held: Held, keys: Array, weights: Any, shared: Any, train: Data) -> Any:
    return _with(kernel, held).start(keys, weights, shared, train)


@partial(jax.jit, static_argnums=0)
def _advance(kernel: Alike, held: Held, state: Any, train: Data, steps: Array) -> Any:
    return _with(kernel, held).advance(state, train, steps)


@partial(jax.jit, static_argnums=0)
def _fit(kernel: Alike, held: Held, draw: Array, train: Data, weights: dict[str, Array]) -> Any:
    return _with(kernel, held).fit(draw, train, weights)


@jax.jit
def _of(weights: Mapping[str, Array], chain: int) -> dict[str, Array]:
    return {name: w[chain] for name, w in weights.items()}


@partial(jax.jit, static_argnums=0)
def _curvature(
    kernel: Alike, held: Held, weights: dict[str, Array], root: Any, train: Data
) -> Array:
    return _with(kernel, held).curvature(weights, root, train)


@partial(jax.jit, static_argnums=0)
def _rise_at_prior(model: Alike, held: Held, train: Data, localization: float) -> Array:
    return rise_at_prior(model.of.holding(held), train, localization)


@partial(jax.jit, static_argnums=0)
def _stats(kernel: Alike, held: Held, state: Any) -> dict[str, Array]:
    squares = [
        jnp.sum((w - held[0][name]).reshape(len(w), -1) ** 2, axis=1) for name, w in state.z.items()
    ]
    found = {name: getattr(state, name) for name in kernel.of.stats}
    return {**found, "distance": jnp.sqrt(jnp.stack(squares).sum(0))}


@partial(
    jax.jit,
    static_argnames=("kernel", "most", "names", "rows_at_once"),
    donate_argnames="own",
)
def _draws(
    kernel: Alike,
    held: Held,
    own: Any,
    shared: Any,
    step_size: Array,
    train: Data,
    data: Mapping[str, Batch],
    steps: Array,
    count: Array,
    *,
    most: int,
    names: tuple[str, ...],
    rows_at_once: int,
) -> tuple[Any, Draws]:
    """Make and score draws into arrays with room for ``most`` of them."""

    def whole(own: Any) -> Any:
        return own._replace(shared=shared, step_size=step_size)

    def observe(own: Any) -> Draws:
        state = whole(own)
        known = kernel.of.train_log_likelihood(state)
        ready = {} if known is None else {"train": known}
        model = Alike(kernel.of.model)
        scored = {
            name: _score(model, held, state.z, rows, rows_at_once)
            for name, rows in data.items()
            if name not in ready
        }
        return Draws(ready | scored, _stats(kernel, held, state), {n: state.z[n] for n in names})

    def draw(i: Array, found: tuple[Any, Draws]) -> tuple[Any, Draws]:
        own, kept = found
        state = _with(kernel, held).advance(whole(own), train, steps)
        own = state._replace(shared=None, step_size=None)
        return own, jax.tree.map(lambda a, new: a.at[:, i].set(new), kept, observe(own))

    empty = jax.tree.map(
        lambda a: jnp.zeros((a.shape[0], most, *a.shape[1:]), a.dtype),
        jax.eval_shape(observe, own),
    )
    return jax.lax.fori_loop(0, count, draw, (own, empty))


@partial(jax.jit, static_argnames=("model", "size"))
def _score(
    model: Alike, held: Held, weights: Mapping[str, Array], batch: Batch, size: int
) -> Array:
    """Log-likelihoods of all rows, so many at a time, ``(chain, row[, token])``."""
    local = model.of.holding(held)
    score = partial(jax.vmap(local.log_likelihood, in_axes=(0, None)), local.cast(weights))
    rows = num_rows(batch)
    if rows <= size:
        return score(batch)
    even = rows // size * size
    chunks = map_arrays(lambda a: a[:even].reshape(-1, size, *a.shape[1:]), batch)
    values = jnp.moveaxis(jax.lax.map(score, chunks), 0, 1)
    values = values.reshape(values.shape[0], even, *values.shape[3:])
    if even == rows:
        return values
    return jnp.concatenate([values, score(map_arrays(lambda a: a[even:], batch))], axis=1)


def _gathered(states: Sequence[Any]) -> dict[str, Array]:
    """Lay the weights of states side by side, ``(chain, ...)``."""
    return {name: jnp.concatenate([state.z[name] for state in states]) for name in states[0].z}
