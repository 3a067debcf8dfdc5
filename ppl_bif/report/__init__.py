"""One HTML page on a run: can its scores be trusted, and which rows taught the queries.

The page carries its pictures and styles inside it, loads nothing, runs no script, and escapes
whatever the data brings.
"""

from pathlib import Path
from typing import Any

import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined

from ppl_bif.diagnostics import diagnose, table
from ppl_bif.plots.captions import reading
from ppl_bif.plots.choose import best_of
from ppl_bif.report.advice import VERDICTS, next_steps, settings
from ppl_bif.report.cards import query_cards
from ppl_bif.report.pages import page_path, write_page
from ppl_bif.report.pictures import panel_pictures
from ppl_bif.schema import group, root_attrs
from ppl_bif.scores import influence

__all__ = ["write_report"]

MOST_QUERIES = 50


def write_report(idata: Any, path: str | Path, *, queries: Any = None, k: int = 5) -> Path:
    """Write a self-contained HTML page: verdict, top influences with errors, settings, advice.

    Parameters
    ----------
    idata
        A run of `ppl_bif.sample`. Pictures are shown where its ``constant_data`` holds
        ``train_image`` and ``query_image`` (row, y, x[, c]); classes where it holds
        ``class_name`` (class,).
    path
        File to write; missing folders above it are made.
    queries
        Ids of the queries to show, in this order; the first 50 by default.
    k
        How many training rows in each direction.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ValueError
        If a query is unknown, the run has a single chain, or the path is a folder.
    BIFError
        If fewer than two chains are left that did not diverge.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np, xarray as xr
    >>> from ppl_bif.report import write_report
    >>> w = np.random.default_rng(0).normal(size=(4, 100, 1))
    >>> loglik = xr.Dataset(
    ...     {
    ...         "train_obs": (("chain", "draw", "train"), -w * np.arange(1.0, 4.0)),
    ...         "query_obs": (("chain", "draw", "query"), -w * np.arange(1.0, 3.0)),
    ...     },
    ...     coords={"train": ["a", "b", "c"], "query": ["q", "r"]},
    ... )
    >>> run = xr.DataTree.from_dict({"log_likelihood": loglik})
    >>> with TemporaryDirectory() as folder:
    ...     page = write_report(run, f"{folder}/report.html").read_text(encoding="utf-8")
    >>> "<!doctype html>" in page
    True
    """
    path = page_path(path, "report.html")
    check, scores = diagnose(idata, verbose=False), influence(idata)
    best = best_of(scores, queries, k, first=MOST_QUERIES)
    page = _environment().get_template("template.html").render(**_content(idata, check, best))
    return write_page(path, page)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("ppl_bif.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _content(idata: Any, check: xr.Dataset, best: xr.Dataset) -> dict[str, Any]:
    likelihood = group(idata, "log_likelihood")
    assert likelihood is not None
    return {
        "verdict": check.attrs["verdict"],
        "verdict_text": VERDICTS[check.attrs["verdict"]],
        "reasons": [_signs(reason) for reason in check.attrs["reasons"]],
        "rows": [tuple(map(_signs, row)) for row in table(check)],
        "sizes": {str(name): f"{size:,}" for name, size in likelihood.sizes.items()},
        "reading": reading(best.attrs),
        "fdr": f"{best.attrs['fdr']:.0%}",
        "excluded": [str(chain) for chain in best.attrs["chains_excluded"]],
        "cards": query_cards(best, idata),
        "total": likelihood.sizes["query"],
        "figures": panel_pictures(check, idata),
        "settings": settings(root_attrs(idata)),
        "steps": next_steps(check, best, likelihood.sizes["draw"]),
    }


def _signs(text: str) -> str:
    """Set comparisons in the signs of a printed page, where a terminal may have only ASCII."""
    return text.replace("<=", "≤").replace(">=", "≥").replace(" ... ", " to ")
