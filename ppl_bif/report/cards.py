"""The queries of a report: for each, the rows that raise and lower it, ready to be laid out."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.plots.captions import score_lines
from ppl_bif.plots.gallery import Gallery, gallery
from ppl_bif.report.pictures import array_png

__all__ = ["Card", "Tile", "query_cards"]


class Tile(NamedTuple):
    """One training row under a query; ``low``, ``middle``, ``high`` are per cent of a bar's width.

    Zero lies at 50, and all bars of a query share one scale.
    """

    name: str
    label: str
    score: str
    error: str
    resolved: bool
    image: str | None
    low: float
    middle: float
    high: float


class Card(NamedTuple):
    """One query with the rows that most raise and most lower its log-likelihood."""

    name: str
    label: str
    guess: str
    image: str | None
    sides: dict[str, list[Tile]]
    resolved: int
    shown: int


def query_cards(best: xr.Dataset, idata: Any) -> list[Card]:
    """Lay out what `ppl_bif.top` returned, with pictures and labels from the run."""
    train, asked = gallery(idata, "train"), gallery(idata, "query")
    return [_card(best.isel(query=at), train, asked) for at in range(best.sizes["query"])]


def _card(one: xr.Dataset, train: Gallery, asked: Gallery) -> Card:
    name = one["query"].values[()]
    reach = np.abs(one["influence"]) + 2 * one["mcse"].fillna(0)
    scale = 48 / (float(reach.max()) or 1.0)
    sides = {
        str(direction): [
            _tile(one.sel(direction=direction).isel(rank=rank), train, scale)
            for rank in range(one.sizes["rank"])
        ]
        for direction in one["direction"].values
    }
    label, guess = [*asked.label(name), "", ""][:2]
    tiles = [tile for side in sides.values() for tile in side]
    found = sum(tile.resolved for tile in tiles)
    return Card(str(name), label, guess, array_png(asked.image(name)), sides, found, len(tiles))


def _tile(cell: xr.Dataset, train: Gallery, scale: float) -> Tile:
    name, score, mcse = (cell[key].values[()] for key in ("train", "influence", "mcse"))
    spread = 2 * mcse if np.isfinite(mcse) else 0.0
    return Tile(
        str(name),
        " ".join(train.label(name)),
        *score_lines(float(score), float(mcse)),
        bool(cell["resolved"]),
        array_png(train.image(name)),
        *(round(float(50 + scale * (score + shift)), 2) for shift in (-spread, 0.0, spread)),
    )
