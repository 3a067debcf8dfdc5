"""What is scored of rows that hold tokens: each token, row or document, or spans of text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.text import IGNORED

__all__ = ["BY", "Span", "Units", "as_by", "consecutive", "units"]

BY = ("sequence", "token", "document", "span")
REDUCE = ("sum", "mean")


class Span(NamedTuple):
    """Characters ``start`` to ``stop`` of a document, and what they are called."""

    document: Any
    start: int
    stop: int
    name: Any = None


class Units(NamedTuple):
    """Parts of rows that lie one after the other, each scored as one.

    Attributes
    ----------
    start, stop
        ``(unit,)``: the first token and the one after the last, counted through all rows.
    ids
        ``(unit,)``.
    coords
        What else is known of them, each ``(unit,)``.
    counts
        ``(unit,)``: tokens to take the mean over; None for the sum.
    """

    start: np.ndarray
    stop: np.ndarray
    ids: np.ndarray
    coords: dict[str, np.ndarray]
    counts: np.ndarray | None = None

    def rows(self, chosen: Any, length: int) -> np.ndarray:
        """Return the rows, of so many tokens each, that some units lie in, in order."""
        first, last = self.start[chosen] // length, (self.stop[chosen] - 1) // length
        if (first == last).all():
            return np.unique(first)
        return np.unique(
            np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)])
        )

    def sums(self, chosen: Any, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Sum, or average, the tokens of some units.

        Parameters
        ----------
        chosen
            Which units.
        values
            ``(chain, draw, row, token)``, of the rows that :meth:`rows` named.
        rows
            Their numbers.

        Returns
        -------
        numpy.ndarray
            ``(chain, draw, unit)``.
        """
        start, length = self.start[chosen], values.shape[3]
        size = self.stop[chosen] - start
        start = np.searchsorted(rows, start // length) * length + start % length
        flat = values.reshape(*values.shape[:2], -1)
        if (size == 1).all():
            found = flat[..., consecutive(start)]
        else:
            flat = np.concatenate([flat, np.zeros((*flat.shape[:2], 1), flat.dtype)], axis=2)
            edges = np.stack([start, start + size], axis=1).ravel()
            found = np.add.reduceat(flat, edges, axis=2, dtype=float)[..., ::2]
        return found if self.counts is None else found / self.counts[chosen]


def consecutive(numbers: np.ndarray) -> slice | np.ndarray:
    """Return a slice in place of numbers that follow one another: taking it copies nothing.

    Examples
    --------
    >>> consecutive(np.array([3, 4, 5])), consecutive(np.array([3, 5]))
    (slice(3, 6, None), array([3, 5]))
    """
    if len(numbers) and (np.diff(numbers) == 1).all():
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers


def as_by(by: Any) -> dict[str, str]:
    """Check what is scored on each side.

    Raises
    ------
    ValueError
        If it is unknown.
    """
    sides = {"train", "query"}
    named = dict(by) if isinstance(by, Mapping) else dict.fromkeys(sides, by)
    if not set(named) <= sides:
        raise ValueError(f"by names the sides train and query; got {sorted(named)}")
    for what in named.values():
        if what not in BY:
            raise ValueError(
                f"by must be one of {BY}, or one of them for train and query; got {what!r}"
            )
    return {side: named.get(side, "sequence") for side in ("train", "query")}


def units(
    array: xr.DataArray,
    constant: xr.Dataset | None,
    by: str,
    *,
    spans: Iterable[Span] | None = None,
    reduce: str = "sum",
) -> Units:
    """Find the units of one side of a run.

    Parameters
    ----------
    array
        Its traces, with a dim of rows and one of tokens.
    constant
        Constant data of the run, with what :meth:`ppl_bif.text.Text.constant` gave.
    by
        One of :data:`BY`.
    spans
        For ``by="span"``.
    reduce
        ``"sum"`` or ``"mean"`` of the tokens of a unit.

    Raises
    ------
    ValueError
        If the traces have no tokens, or it is not known where these stand, or a span holds none.
    """
    if reduce not in REDUCE:
        raise ValueError(f"reduce must be one of {REDUCE}; got {reduce!r}")
    tokens = [d for d in array.dims if str(d).endswith("_token")]
    if not tokens:
        raise ValueError(
            f"by={by!r} needs log-likelihoods of tokens, and {array.name!r} has one for each row: "
            'sample with likelihood="tokens"'
        )
    side = str(tokens[0]).removesuffix("_token")
    known = _Known(side, array[side].values, array.sizes[tokens[0]], constant)
    if by == "token":
        return _tokens(known)
    if by == "sequence":
        found = _ranges(known, known.ids, np.arange(len(known.ids)))
    elif by == "document":
        found = _documents(known)
    else:
        if spans is None:
            raise ValueError('by="span" needs spans: (document, start, stop) in characters')
        found = _spans(known, [Span(*span) for span in spans])
    return found if reduce == "mean" else found._replace(counts=None)


class _Known(NamedTuple):
    """What is known of the rows of a side."""

    side: str
    ids: np.ndarray
    length: int
    constant: xr.Dataset | None

    def get(self, name: str) -> np.ndarray | None:
        if self.constant is None or f"{self.side}_{name}" not in self.constant:
            return None
        return self.constant[f"{self.side}_{name}"].values

    def several(self, *names: str) -> list[np.ndarray] | None:
        """Return these, or nothing where one is missing."""
        found = [values for name in names if (values := self.get(name)) is not None]
        return found if len(found) == len(names) else None

    @property
    def counted(self) -> np.ndarray:
        """Which tokens have a log-likelihood, ``(row, token)``."""
        shape = len(self.ids), self.length
        for name, nothing in (("target", IGNORED), ("loss_at_mode", 0)):
            values = self.get(name)
            if values is not None and values.shape == shape:
                return values != nothing
        return np.ones(shape, bool)

    @property
    def documents(self) -> np.ndarray:
        """The document of each row."""
        found = self.get("document")
        return self.ids if found is None else found


def _tokens(known: _Known) -> Units:
    row, position = np.nonzero(known.counted)
    at = row * known.length + position
    coords = {"row": known.ids[row], "document": known.documents[row], "position": position}
    places = known.several("token_start", "token_stop", "text", "text_start")
    if places is not None:
        start, stop = (of[row, position] for of in places[:2])
        text, origin = (of[row] for of in places[2:])
        coords |= {"start": start, "stop": stop}
        cut = zip(text, start - origin, stop - origin, strict=True)
        coords["token"] = np.array([whole[a:b] for whole, a, b in cut], str)
    names = np.array([f"{a}@{b}" for a, b in zip(known.ids[row], position, strict=True)], str)
    return Units(at, at + 1, names, coords)


def _ranges(known: _Known, ids: np.ndarray, first: np.ndarray, rows: Any = 1) -> Units:
    """Make units of rows that lie one after the other."""
    start = first * known.length
    stop = (first + rows) * known.length
    counts = np.add.reduceat(known.counted.ravel(), start)
    if (counts == 0).any():
        raise ValueError(
            f"{known.side} rows {ids[counts == 0][:5].tolist()} hold no token that counts"
        )
    return Units(start, stop, ids, {}, counts)


def _documents(known: _Known) -> Units:
    documents = known.documents
    first = np.flatnonzero(np.r_[True, documents[1:] != documents[:-1]])
    ids = documents[first]
    if len(np.unique(ids)) < len(ids):
        raise ValueError(
            f"the rows of some {known.side} documents do not lie one after the other: order them"
        )
    return _ranges(known, ids, first, np.diff(np.r_[first, len(documents)]))


def _spans(known: _Known, spans: Sequence[Span]) -> Units:
    places = known.several("token_start", "token_stop")
    if places is None:
        raise ValueError(
            f"it is not known where tokens of {known.side} stand: make rows by ppl_bif.text.encode "
            f"and pass constant_data=rows.constant({known.side!r})"
        )
    start, stop = (values.ravel() for values in places)
    documents, counted = np.repeat(known.documents, known.length), known.counted.ravel()
    inside = [
        np.flatnonzero(
            counted & (documents == span.document) & (stop > span.start) & (start < span.stop)
        )
        for span in spans
    ]
    for span, at in zip(spans, inside, strict=True):
        if not len(at):
            raise ValueError(f"{known.side} {tuple(span[:3])} holds no token that counts")
    names = [f"{s.document}[{s.start}:{s.stop}]" if s.name is None else s.name for s in spans]
    return Units(
        np.array([at[0] for at in inside]),
        np.array([at[-1] + 1 for at in inside]),
        np.array(names),
        {
            "document": np.array([span.document for span in spans]),
            "start": np.array([span.start for span in spans]),
            "stop": np.array([span.stop for span in spans]),
        },
        np.array([len(at) for at in inside]),
    )
