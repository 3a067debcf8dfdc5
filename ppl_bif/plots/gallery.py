"""What is known of the rows of a run besides their scores: pictures and labels, found by id."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.plots.captions import shorten
from ppl_bif.schema import group

__all__ = ["Gallery", "gallery"]


class Gallery(NamedTuple):
    """Pictures and labels of the rows of train or query; either may be missing."""

    position: dict[Any, int]
    images: Any
    value_range: tuple[float, float]
    labels: Sequence[tuple[str, ...]] | None

    def image(self, row: Any) -> np.ndarray | None:
        """Return the picture of a row as uint8 (y, x) or (y, x, c); None if it has none."""
        at = self.position.get(_plain(row))
        if self.images is None or at is None:
            return None
        low, high = self.value_range
        picture = (np.asarray(self.images[at], dtype=float) - low) / ((high - low) or 1.0)
        return np.round(255 * np.clip(np.nan_to_num(picture), 0, 1)).astype(np.uint8)

    def label(self, row: Any) -> tuple[str, ...]:
        """Return the label of a row, and what a query was guessed to be if that is wrong."""
        at = self.position.get(_plain(row))
        return () if self.labels is None or at is None else self.labels[at]

    def lines(self, row: Any, width: int = 13) -> list[str]:
        """Return what a caption says of a row: its id and its label, shortened."""
        return [shorten(row, width), *(shorten(text, 16) for text in self.label(row))]


def gallery(
    idata: Any, name: str, images: Any = None, ids: Any = None, variable: str | None = None
) -> Gallery:
    """Collect the pictures and labels of train or query rows.

    Parameters
    ----------
    idata
        A run whose constant_data may hold ``<name>_image`` (row, y, x[, c]), ``<name>_target``
        (row,), ``query_prediction`` (row,) and ``class_name`` (class,); or None.
    name
        ``"train"`` or ``"query"``.
    images
        Pictures (row, y, x[, c]) that go before those of ``idata``.
    ids
        The ids of the rows of ``images``, where neither it nor ``idata`` names them.
    variable
        Whose rows they are, if not ``<name>_obs``: training rows may be explained too, and what is
        no row of either, such as a parameter, has neither picture nor label.

    Raises
    ------
    ValueError
        If the pictures have a wrong shape or it is not known which row they belong to.
    """
    data = None if idata is None else group(idata, "constant_data")
    known = {} if data is None else data
    side = name if variable is None else variable.removesuffix("_obs")
    images = known.get(f"{side}_image") if images is None else images
    named = _ids(images, name)
    named = _ids(images, side) if named is None else named
    named = _ids(known, side) if named is None else named
    named = ids if named is None else named
    if images is not None:
        _check_images(images, name, named)
    rows = [] if named is None else [_plain(row) for row in np.asarray(named)]
    labels = _labels(known, side) if f"{side}_target" in known else None
    position = {row: at for at, row in enumerate(rows)}
    return Gallery(position, images, _value_range(images), labels)


def _plain(row: Any) -> Any:
    return row.item() if hasattr(row, "item") else row


def _ids(data: Any, name: str) -> Any:
    return data.coords[name].values if name in getattr(data, "coords", ()) else None


def _check_images(images: Any, name: str, ids: Any) -> None:
    shape = tuple(getattr(images, "shape", np.shape(images)))
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
        raise ValueError(
            f"{name}_images must have shape (row, y, x) or (row, y, x, c) with 1, 3 or 4 channels "
            f"last; got {shape}: reshape them, or move the channels to the end"
        )
    if ids is None:
        raise ValueError(
            f"{name}_images do not say which row each belongs to: pass idata= as well, or an "
            f"xarray.DataArray with a coordinate {name!r} that holds the ids"
        )
    if len(ids) != shape[0]:
        raise ValueError(
            f"{name}_images must hold one picture per {name} row, {len(ids)} in all; got {shape[0]}"
        )


def _value_range(images: Any) -> tuple[float, float]:
    """Return the values shown as black and white: those of the type for bytes, else of the data."""
    if images is None or np.dtype(images.dtype) == np.uint8:
        return 0.0, 255.0
    values = images.data if isinstance(images, xr.DataArray) else images
    return float(np.nanmin(values)), float(np.nanmax(values))


def _labels(known: Any, name: str) -> list[tuple[str, ...]] | None:
    targets = np.asarray(known[f"{name}_target"].values)
    if targets.ndim != 1:
        return None
    classes = np.asarray(known["class_name"].values) if "class_name" in known else None
    labels = _names(targets, classes)
    if name != "query" or "query_prediction" not in known:
        return [(label,) for label in labels]
    guesses = _names(np.asarray(known["query_prediction"].values), classes)
    return [
        (truth,) if truth == guess else (truth, f"guess: {guess}")
        for truth, guess in zip(labels, guesses, strict=True)
    ]


def _names(values: np.ndarray, classes: np.ndarray | None) -> list[str]:
    if classes is not None and values.dtype.kind in "iu":
        return [str(classes[v]) if 0 <= v < len(classes) else str(v) for v in values]
    return [f"{v:.4g}" if values.dtype.kind == "f" else str(v) for v in values]
