"""The rows of one side as the page shows them: text cut into tokens, pictures, or ids."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.plots.gallery import gallery
from ppl_bif.report.pictures import array_png
from ppl_bif.schema import group

__all__ = ["Side", "side_of"]


class Side(NamedTuple):
    """Rows of a side, and how many scored units they hold together."""

    rows: list[dict[str, Any]]
    units: int

    def first(self, units: int) -> "Side":
        """Keep the first rows that hold at most so many units."""
        total = np.cumsum([row["units"] for row in self.rows])
        kept = int(np.searchsorted(total, units, side="right"))
        return Side(self.rows[:kept], int(total[kept - 1]) if kept else 0)


def side_of(idata: Any, scores: xr.Dataset, name: str) -> Side:
    """Describe the rows that scores lie on.

    Parameters
    ----------
    idata
        The run, with its constant data.
    scores
        By token, or by row.
    name
        ``"train"`` or ``"query"``.
    """
    if f"{name}_row" in scores.coords:
        return _texts(idata, scores, name)
    variable = scores.attrs.get(f"{name}_variable")
    known = gallery(idata, name, ids=scores[name].values, variable=variable)
    rows = [
        {
            "id": str(row),
            "units": 1,
            "label": " ".join(known.label(row)),
            "picture": array_png(known.image(row)),
        }
        for row in scores[name].values
    ]
    return Side(rows, len(rows))


def _texts(idata: Any, scores: xr.Dataset, name: str) -> Side:
    """Describe rows of tokens: their text, and where in it each token stands."""
    rows, starts = _runs(scores[f"{name}_row"].values)
    stops = np.append(starts[1:], scores.sizes[name])
    if f"{name}_start" not in scores.coords:
        found = [
            _numbered(row, scores, name, slice(*at))
            for row, *at in zip(rows, starts, stops, strict=True)
        ]
        return Side(found, scores.sizes[name])
    constant, likelihood = group(idata, "constant_data"), group(idata, "log_likelihood")
    assert constant is not None
    assert likelihood is not None
    at = {row: i for i, row in enumerate(likelihood[name].values.tolist())}
    texts, origins = (constant[f"{name}_{part}"].values for part in ("text", "text_start"))
    begin, end = (scores[f"{name}_{part}"].values for part in ("start", "stop"))
    found = []
    for row, a, b in zip(rows, starts, stops, strict=True):
        text, origin = str(texts[at[row.item()]]), int(origins[at[row.item()]])
        places = _in_utf16(text)
        found.append(
            {
                "id": str(row),
                "units": int(b - a),
                "text": text,
                "starts": places[begin[a:b] - origin].tolist(),
                "stops": places[end[a:b] - origin].tolist(),
            }
        )
    return Side(found, scores.sizes[name])


def _in_utf16(text: str) -> np.ndarray:
    """Return where each character stands as browsers count, which count some characters twice."""
    return np.cumsum([0, *(1 + (ord(character) > 0xFFFF) for character in text)])


def _numbered(row: Any, scores: xr.Dataset, name: str, part: slice) -> dict[str, Any]:
    """Write tokens whose text is not known as their places."""
    words = [str(place) for place in scores[f"{name}_position"].values[part]]
    stops = np.cumsum([len(word) + 1 for word in words])
    starts = stops - [len(word) + 1 for word in words]
    return {
        "id": str(row),
        "units": len(words),
        "text": " ".join(words),
        "starts": starts.tolist(),
        "stops": (stops - 1).tolist(),
    }


def _runs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows in order, and where each begins."""
    starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    return rows[starts], starts
