"""One HTML page on which one points at a token, or a picture, and sees what taught it.

The page carries everything inside it and loads nothing. Its one script is named by its hash, so
that no other runs; text is set as text, whatever it holds.
"""

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.explorer.sides import side_of
from ppl_bif.ranking import discovered
from ppl_bif.report.pages import page_path, write_page
from ppl_bif.schema import group, root_attrs
from ppl_bif.scores import influence

__all__ = ["write_explorer"]

# Three bytes each, and a third more as text.
MOST_PAIRS = 8_000_000
WHOLE, SHARE, RESOLVED = 32767, 127, 128
FDR = 0.05


def write_explorer(
    idata: Any,
    path: str | Path,
    *,
    kind: str = "covariance",
    shrink: str | None = "auto",
    max_pairs: int = MOST_PAIRS,
    title: str = "Which example taught the model this?",
) -> Path:
    """Write a self-contained page: choose a token or a row, and all others show their influence.

    Blue raises the log-likelihood of what is chosen, orange lowers it. What is not resolved from
    zero, at a false discovery rate of 5% over all that is scored for a query, as
    :func:`ppl_bif.top` has it, is pale and says so. Choosing on the training side shows what it
    does to the queries.

    Parameters
    ----------
    idata
        A run of :func:`ppl_bif.sample`. Rows of tokens are shown as text where its
        ``constant_data`` holds what :meth:`ppl_bif.text.Text.constant` gave, and token by token;
        other rows by their pictures ``train_image`` and ``query_image``, or by their ids.
    path
        File to write; missing folders above it are made.
    kind, shrink
        As :func:`ppl_bif.influence` takes them.
    max_pairs
        Pairs of a query's and a training token that the page may hold; beyond, only the first
        query rows are on it, and it says how many. A pair takes four bytes of the file.
    title
        Its heading.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ValueError
        If the path is a folder, or no query row fits into ``max_pairs``.
    BIFError
        As :func:`ppl_bif.influence` raises it.

    Notes
    -----
    Values are rounded to 1/32,767 of the largest of their query, errors to 1/127.

    Examples
    --------
    ``write_explorer(idata, "page.html")``, or ``ppl-bif report RUN --html page.html``.
    """
    path = page_path(path, "page.html")
    likelihood = group(idata, "log_likelihood")
    dims = set() if likelihood is None else set(likelihood.dims)
    by = {side: "token" if f"{side}_token" in dims else "sequence" for side in ("train", "query")}
    scores = influence(idata, by=by, kind=kind, shrink=shrink)
    train, query = (side_of(idata, scores, name) for name in ("train", "query"))
    shown = query.first(max_pairs // scores.sizes["train"])
    if not shown.rows:
        raise ValueError(
            f"{scores.sizes['train']:,} training tokens by those of one query are more than "
            f"max_pairs={max_pairs:,}: raise it, or sample fewer"
        )
    content = {
        "title": title,
        "kind": kind,
        "train": train.rows,
        "query": shown.rows,
        "left_out": len(query.rows) - len(shown.rows),
        **_packed(scores.isel(query=slice(shown.units)).compute()),
        "about": _about(idata, scores),
    }
    return write_page(path, _page(content))


def _packed(scores: xr.Dataset) -> dict[str, Any]:
    """Round scores to two bytes, and errors with whether they are resolved to one."""
    value, error = (scores[name].values.astype(float) for name in ("influence", "mcse"))
    largest = np.abs(value).max(axis=1, keepdims=True)
    widest = np.nanmax(np.where(np.isfinite(error), error, 0.0), axis=1, keepdims=True)
    codes = np.rint(value / np.where(largest > 0, largest, 1) * WHOLE).astype("<i2")
    shares = np.nan_to_num(error / np.where(widest > 0, widest, 1), nan=1.0, posinf=1.0) * SHARE
    marks = np.ceil(shares).clip(0, SHARE).astype("u1")
    marks |= np.where(discovered(scores, FDR), RESOLVED, 0).astype("u1")
    return {
        "values": base64.b64encode(codes.tobytes()).decode(),
        "errors": base64.b64encode(marks.tobytes()).decode(),
        "largest": [float(f"{v:.6g}") for v in largest[:, 0]],
        "widest": [float(f"{v:.6g}") for v in widest[:, 0]],
    }


def _about(idata: Any, scores: xr.Dataset) -> str:
    attrs, chains = root_attrs(idata), len(scores.attrs["chains_used"])
    model = attrs.get("model", "")
    found = f"{chains} chains of {scores.attrs['draws']:,} draws"
    return f"{model}, {found}" if model else found


def _page(content: dict[str, Any]) -> str:
    """Put script, style and data into one page."""
    here = files("ppl_bif.explorer")
    script, style, frame = (
        here.joinpath(name).read_text("utf-8") for name in ("page.js", "page.css", "page.html")
    )
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    parts = {
        "SHA": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "STYLE": style,
        "SCRIPT": script,
        # Within a script element only its end, and a comment's beginning, are more than text.
        "DATA": data.replace("<", "\\u003c"),
    }
    for name, part in parts.items():
        frame = frame.replace(f"@{name}@", part, 1)
    return frame
