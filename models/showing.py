"""What the demo and the experiments do with a trained network: sample, and show what taught it.

Of each run there is a store, a picture and an HTML report, beside one another; the top influences
of some queries, with their errors, are printed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

import ppl_bif as bif
from ppl_bif.schema import group

__all__ = ["Rows", "announce", "show"]


class Rows(NamedTuple):
    """What is attributed to and what is explained, as :func:`ppl_bif.sample` takes them.

    Attributes
    ----------
    train, query
        Inputs and classes, ``(row, ...)`` and ``(row,)``.
    train_ids, query_ids
        Names of the rows, ``(row,)``.
    constant_data
        ``train_image`` and ``query_image``, and ``class_name`` where classes have names.
    """

    train: tuple[np.ndarray, np.ndarray]
    query: tuple[np.ndarray, np.ndarray]
    train_ids: np.ndarray
    query_ids: np.ndarray
    constant_data: dict[str, Any]


def show(
    console: Console,
    model: Any,
    rows: Rows,
    guesses: np.ndarray,
    store: Path,
    *,
    kind: str,
    **settings: Any,
) -> xr.Dataset:
    """Sample, diagnose, print what taught some queries, write a picture and a report.

    Parameters
    ----------
    console
        Where it is printed.
    model
        The localized network.
    rows
        What is attributed to and what is explained.
    guesses
        The network's classes of the queries, ``(query,)``.
    store
        Of the run; the picture and the report differ from it by their suffix.
    kind
        What a class is called in the tables.
    settings
        Of :func:`ppl_bif.sample`.

    Returns
    -------
    xarray.Dataset
        The scores, (query, train).
    """
    given = {**rows.constant_data, "query_prediction": ("query", guesses)}
    idata = bif.sample(
        model,
        **rows._replace(constant_data=given)._asdict(),
        store=store,
        progress=True,
        **settings,
    )
    bif.diagnose(idata)
    chosen = _queries(rows, guesses)
    scores = bif.influence(idata)
    _print_top(console, bif.top(scores.sel(query=chosen), k=3), idata, kind)
    bif.plot_top(scores, query=chosen, k=5, idata=idata).savefig(store.with_suffix(".png"))
    bif.write_report(idata, store.with_suffix(".html"), queries=chosen)
    return scores


def announce(console: Console, stores: Sequence[Path], more: str) -> None:
    """Say what was written, and what to do next: ``more`` is the command for more draws."""
    console.rule("What there is now")
    for store in stores:
        report, picture = store.with_suffix(".html"), store.with_suffix(".png")
        console.print(f"report {report}   picture {picture}   run {store}", soft_wrap=True)
    console.print(
        f"Next: open a report; `ppl-bif top {stores[0]} -k 10`; `ppl-bif diagnose {stores[0]}`; "
        f"`{more}` for more resolved ranks.",
        soft_wrap=True,
    )


def _queries(rows: Rows, guesses: np.ndarray) -> list[Any]:
    """Two queries the network got wrong, and three that it got right."""
    wrong = np.flatnonzero(guesses != rows.query[1])[:2]
    right = np.flatnonzero(guesses == rows.query[1])[:41:20]
    return rows.query_ids[np.concatenate([wrong, right])].tolist()


def _print_top(console: Console, best: Any, idata: Any, kind: str) -> None:
    constant = group(idata, "constant_data")
    assert constant is not None
    for query in best["query"].values:
        row = constant.sel(query=query)
        told, guess = (_class(constant, row[f"query_{v}"]) for v in ("target", "prediction"))
        mistake = f", taken for {_article(guess)}" if told != guess else ""
        table = Table("", "train image", kind, "influence (nats)", "")
        table.title = f"test image {query}: {_article(told)}{mistake}"
        for direction in best["direction"].values:
            for rank in best["rank"].values:
                score = best.sel(query=query, direction=direction, rank=rank)
                label = _class(constant, constant["train_target"].sel(train=score["train"]))
                error = f"{float(score['influence']):+.2g} ± {float(score['mcse']):.1g}"
                mark = "" if score["resolved"] else "unresolved"
                table.add_row(str(direction), str(score["train"].item()), label, error, mark)
        console.print(table)


def _class(constant: xr.Dataset, label: Any) -> str:
    """Return the name of a class, or its number where classes have none."""
    return str(constant["class_name"].values[label] if "class_name" in constant else int(label))


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
