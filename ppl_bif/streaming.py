"""Covariances with given queries from sums over blocks of draws, of rows whose traces are not kept.

NumPy and xarray only. Of each chain and block of draws are kept, for each training row, the sums of
its log-likelihood, of its square, and of its products with the queries, all less their values at
the trained weights. What centring at the mean of a chain takes from them is known at its end, from
the sums themselves; so values and errors are those of stored traces with the same blocks.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.blocks import MAX_BLOCKS, Blocks
from ppl_bif.covariance import Layout, Series, finished, layout
from ppl_bif.errors import BIFError
from ppl_bif.recording import Room, lay
from ppl_bif.schema import group
from ppl_bif.tiles import Estimate
from ppl_bif.traces import Traces

__all__ = [
    "SUMS",
    "Stream",
    "Sums",
    "draws_per_block",
    "find_sums",
    "is_streamed",
    "refuse_streamed",
]

SUMS = "train_sums"
TRAIN = "log_likelihood/train_obs"


class Stream(NamedTuple):
    """What is made of draws as they come, in place of traces of all training rows.

    Attributes
    ----------
    at_mode
        Log-likelihoods of ``train`` and ``query`` at the trained weights, ``(row,)``: tokens are
        summed.
    kept
        Positions of training rows whose traces are kept, to diagnose the run by.
    """

    at_mode: Mapping[str, np.ndarray]
    kept: np.ndarray

    def fold(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Put sums over some draws in place of what is not kept.

        The sums are ``(chain, 1, factor, train)``: of a row's log-likelihoods times 1, times
        themselves, and times those of each query.
        """
        train, query = (
            _rows(found[f"log_likelihood/{name}_obs"]) - self.at_mode[name]
            for name in ("train", "query")
        )
        factors = np.concatenate([np.ones_like(query[..., :1]), query], axis=2)
        products = factors.transpose(0, 2, 1) @ train
        squares = np.einsum("cdt,cdt->ct", train, train)[:, None]
        sums = np.concatenate([products[:, :1], squares, products[:, 1:]], axis=1)[:, None]
        return {**found, TRAIN: found[TRAIN][:, :, self.kept], f"log_likelihood/{SUMS}": sums}

    def lay(self, room: Room, burst: Mapping[str, np.ndarray], at: int, draws: int) -> None:
        """Add sums to those of the block, and lay what is kept of its draws beside them."""
        name, kept = f"log_likelihood/{SUMS}", dict(burst)
        room[name] = room.get(name, 0) + kept.pop(name)
        lay(room, kept, at, draws)


def _rows(values: np.ndarray) -> np.ndarray:
    """Sum tokens, in double precision."""
    return values.sum(axis=tuple(range(3, values.ndim)), dtype=float)


def draws_per_block(chains: int, draws: int) -> int:
    """Return how many draws are summed, so that errors come from some 32 blocks in all.

    Raises
    ------
    ValueError
        If the draws are not so many whole blocks.
    """
    blocks = -(-MAX_BLOCKS // chains)
    if draws % blocks:
        lower = max(1, draws // blocks)
        raise ValueError(
            f"with stream=True, {chains} chains are summed over {blocks} blocks of draws each: "
            f"pass draws={lower * blocks} or {(lower + 1) * blocks}; got {draws}"
        )
    return draws // blocks


class Sums(NamedTuple):
    """Sums over blocks of a run, read piece by piece.

    Attributes
    ----------
    array
        Dims chain, block, factor, train.
    query
        Traces of the queries.
    query_at_mode
        Their log-likelihoods at the trained weights, ``(query,)``.
    """

    array: xr.DataArray
    query: Traces
    query_at_mode: np.ndarray

    @property
    def ids(self) -> np.ndarray:
        """Of all training rows."""
        return self.array["train"].values

    def fitting(self, wanted: Blocks) -> Blocks:
        """Return as many blocks per chain as can be made of those there are, at most as wanted."""
        kept = self.array.sizes["block"]
        blocks = max(n for n in range(2, kept + 1) if kept % n == 0 and n <= max(wanted.blocks, 2))
        return Blocks(blocks, wanted.time)

    def covariance(self, query: slice, train: slice, blocks: Blocks) -> Estimate:
        """Covariances ``(query, train)`` of some pairs, with errors.

        As :func:`ppl_bif.covariance.block_covariance` has them from traces.
        """
        sums = self.array.isel(chain=self.query.chains, train=train)
        plain = sums.isel(factor=slice(2)).values.astype(float)
        product = sums.isel(factor=slice(2 + query.start, 2 + query.stop)).values.astype(float)
        if not np.isfinite(plain).all() or not np.isfinite(product).all():
            raise BIFError(
                f"{SUMS} holds NaN in chains {self.query.chains}: drop them, or the rows"
            )
        plain, product = (_merged(part, blocks.blocks) for part in (plain, product))
        explained = self.query.read(query) - self.query_at_mode[query]
        return _estimate(plain, product, explained.astype(float), blocks)


def is_streamed(idata: Any) -> bool:
    """Say whether a run has sums in place of traces."""
    return _sums(idata) is not None


def refuse_streamed(idata: Any) -> None:
    """Raise ValueError for a run that has sums in place of traces."""
    if is_streamed(idata):
        raise ValueError("a run with stream=True keeps no traces: sample with stream=False")


def _sums(idata: Any) -> xr.DataArray | None:
    """Find the sums of a run; a store that was opened by other means has them where they lie."""
    places = (group(idata, name) for name in ("constant_data", "log_likelihood"))
    return next((place[SUMS] for place in places if place is not None and SUMS in place), None)


def find_sums(idata: Any, query: Traces, *, kind: str, shrink: str | None) -> Sums | None:
    """Return the sums of a run that was streamed, None of others.

    Raises
    ------
    ValueError
        If it is asked for what takes traces.
    """
    sums = _sums(idata)
    if sums is None:
        return None
    if query.units is not None:
        raise ValueError(
            "a run with stream=True holds sums over the tokens of each row: leave by and reduce "
            "out, or sample with stream=False"
        )
    if shrink == "eb" or kind != "covariance" or query.array.name != "query_obs":
        raise ValueError(
            "of a run with stream=True only covariances with its queries are known, and they are "
            "not shrunk: leave kind, shrink and observable out, or sample with stream=False"
        )
    constant = group(idata, "constant_data")
    if constant is None or "query_loss_at_mode" not in constant:
        raise ValueError("a run with stream=True needs its constant_data, and there is none")
    at_mode = -_tokens_summed(constant["query_loss_at_mode"])
    return Sums(sums, query, at_mode)


def _tokens_summed(losses: xr.DataArray) -> np.ndarray:
    return losses.sum(losses.dims[1:], dtype=float).values


def _merged(sums: np.ndarray, blocks: int) -> np.ndarray:
    """Add up neighbouring blocks, ``(chain, block, ...)``."""
    return sums.reshape(len(sums), blocks, -1, *sums.shape[2:]).sum(axis=2)


def _estimate(
    plain: np.ndarray, product: np.ndarray, query: np.ndarray, blocks: Blocks
) -> Estimate:
    """Take from sums over blocks what centring takes from series.

    Parameters
    ----------
    plain
        Of rows and of their squares, ``(chain, block, 2, train)``.
    product
        Of their products with queries, ``(chain, block, query, train)``.
    query
        Series ``(chain, draw, query)``.
    blocks
        How many there are, and the autocorrelation time.
    """
    chains, draws = query.shape[:2]
    where, size = layout(chains, draws, blocks.blocks, blocks.time), draws // blocks.blocks
    a, b = plain[:, :, 0], _merged(query, blocks.blocks)
    mean_a, mean_b = (part.sum(axis=1, keepdims=True) / draws for part in (a, b))
    centred = product - mean_b[..., None] * a[:, :, None] - b[..., None] * mean_a[:, :, None]
    centred += size * mean_b[..., None] * mean_a[:, :, None]
    total = chains * draws
    square = (centred**2).sum(axis=(0, 1)) / (size * total)
    variance_a = (plain[:, :, 1].sum(axis=(0, 1)) - draws * (mean_a**2).sum(axis=(0, 1))) / total
    variance_b = ((query - mean_b) ** 2).mean(axis=(0, 1))
    train, explained = (
        _series(sums / size - mean, variance, where)
        for sums, mean, variance in ((a, mean_a, variance_a), (b, mean_b, variance_b))
    )
    down = {name: getattr(explained, name)[:, None] for name in ("scale", "variance", "growth")}
    hidden = explained.means.T @ train.means
    value = centred.sum(axis=(0, 1)) / total
    return finished(value, square, hidden, train, explained._replace(**down), where)


def _series(means: np.ndarray, variance: np.ndarray, where: Layout) -> Series:
    """What errors need of each series alone, from means of blocks less their chain's."""
    blocks = means.shape[1]
    scaled = means.reshape(-1, means.shape[2]) / np.sqrt(means.shape[0] * blocks * (blocks - 1))
    own = (scaled**2).sum(axis=0)
    growth = 1 + own / np.where(variance > 0, variance, np.inf)
    return Series(np.ones_like(own), np.empty((0, len(own))), scaled, own, growth)
