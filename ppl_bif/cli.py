"""The command ``ppl-bif``: a demo, and what to ask of a finished run on disk.

Exit status: 0 when all went well, 1 with one line on stderr when something was wrong with the run
or a file, 2 for a wrong command line, 3 when ``diagnose`` finds that a run fails.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import typer
import xarray as xr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ppl_bif import __version__
from ppl_bif.errors import BIFError

__all__ = ["app"]

FAILED_DIAGNOSIS = 3
COLOURS = {"pass": "green", "caution": "yellow", "fail": "red"}
P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    name="ppl-bif",
    help="Which training example taught this? Bayesian influence functions on a finished run.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Backend(StrEnum):
    """Which PPL the demo samples with."""

    pyro = "pyro"
    numpyro = "numpyro"
    both = "both"


class Format(StrEnum):
    """How ``top`` prints."""

    table = "table"
    csv = "csv"
    json = "json"


class Row(NamedTuple):
    """One line of what ``top`` exports: a training row and its score for a query."""

    query: Any
    direction: str
    rank: int
    train: Any
    influence: float | None
    mcse: float | None
    resolved: bool


Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder given to sample(..., store=...).")]
Queries = Annotated[
    list[str] | None, typer.Option("--query", "-q", help="Id of a query; may be repeated.")
]


def _in_one_line(command: Callable[P, R]) -> Callable[P, R]:
    """Turn errors that a user can act on into one line on stderr and exit status 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            raise
        except (BIFError, ValueError, OSError, ImportError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from None

    return run


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ppl-bif {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Which training example taught this? Bayesian influence functions on a finished run."""


@app.command()
@_in_one_line
def demo(
    backend: Annotated[Backend, typer.Option(help="The PPL to sample with.")] = Backend.both,
    draws: Annotated[
        int | None, typer.Option(min=2, help="Draws of each chain.", show_default="the demo's own")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for runs, pictures and reports.")] = Path(
        "ppl-bif-demo"
    ),
) -> None:
    """Train on handwritten digits, sample, and show which images taught what."""
    from ppl_bif_models.demo import run

    more = {} if draws is None else {"draws": draws}
    run(backend=backend.value, out=out, **more)


@app.command()
@_in_one_line
def diagnose(run: Run) -> None:
    """Judge whether the scores of a run can be trusted.

    Exit status: 0 for pass and caution, 3 for fail.
    """
    from ppl_bif.diagnostics import diagnose as judge
    from ppl_bif.diagnostics import table

    check = judge(_open(run), verbose=False)
    verdict = check.attrs["verdict"]
    console = _console()
    console.print(_diagnosis_table(table(check)))
    console.print(Text.assemble("\nverdict: ", (verdict, f"bold {COLOURS[verdict]}")))
    reasons = Table.grid(padding=(0, 1, 0, 0))
    for reason in check.attrs["reasons"]:
        reasons.add_row("-", Text(reason))
    console.print(reasons)
    if verdict == "fail":
        raise typer.Exit(FAILED_DIAGNOSIS)


@app.command()
@_in_one_line
def top(
    run: Run,
    k: Annotated[int, typer.Option("-k", min=1, help="Training rows in each direction.")] = 5,
    query: Queries = None,
    fdr: Annotated[float, typer.Option(help="False discoveries among resolved rows.")] = 0.05,
    format: Annotated[  # noqa: A002 - the option is called --format
        Format, typer.Option(help="csv and json hold full precision, and every query.")
    ] = Format.table,
) -> None:
    """List the training rows that most raise and most lower the log-likelihood of queries.

    As a table, the first five queries unless some are named.
    """
    from ppl_bif.plots.choose import select_queries
    from ppl_bif.ranking import top as strongest
    from ppl_bif.scores import influence

    idata = _open(run)
    scores = influence(idata)
    shown = select_queries(scores, query, 5 if format is Format.table else None)
    best = strongest(shown, k, fdr=fdr).compute()
    if format is Format.csv:
        typer.echo(_as_csv(best), nl=False)
    elif format is Format.json:
        typer.echo(_as_json(best))
    else:
        _print_top(best, idata)


@app.command()
@_in_one_line
def report(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File.", show_default="RUN with .html")
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("-k", min=1, help="Training rows in each direction.", show_default="5"),
    ] = None,
    query: Queries = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write this page instead, alone: choose a token, and see what taught it."
        ),
    ] = None,
) -> None:
    """Write a page that stands alone: verdict, strongest influences with errors, settings."""
    if html is not None:
        if (out, k, query) != (None, None, None):
            raise ValueError(
                "--html writes another page, on which all queries can be chosen: leave -k, --query "
                "and --out out, or --html"
            )
        from ppl_bif.explorer import write_explorer

        typer.echo(f"wrote {write_explorer(_open(run), html)}")
        return
    from ppl_bif.report import write_report

    path = run.resolve().with_suffix(".html") if out is None else out
    typer.echo(f"wrote {write_report(_open(run), path, queries=query, k=k or 5)}")


@app.command()
@_in_one_line
def follow(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder or address of its store.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
) -> None:
    """Say how far a run is that another process makes, until it is finished."""
    from ppl_bif.following import follow as looks

    for standing in looks(run, every):
        typer.echo(str(standing))
        if once:
            return


def _open(run: Path) -> Any:
    from ppl_bif.store import open_store

    return open_store(run)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def _diagnosis_table(rows: list[tuple[str, str, str, str]]) -> Table:
    view = _table()
    view.add_column("measure", ratio=1)
    view.add_column("value", justify="right", no_wrap=True)
    view.add_column("wanted", justify="right", no_wrap=True)
    view.add_column("verdict", no_wrap=True)
    for what, value, wanted, verdict in rows:
        judged = Text(verdict, COLOURS[verdict]) if verdict in COLOURS else Text("-", "dim")
        view.add_row(Text(what), Text(value), Text(wanted), judged)
    return view


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def _print_top(best: xr.Dataset, idata: Any) -> None:
    from ppl_bif.plots.gallery import gallery

    console, train, asked = _console(), gallery(idata, "train"), gallery(idata, "query")
    for at in range(best.sizes["query"]):
        one = best.isel(query=at)
        query = one["query"].item()
        console.print(Text(" · ".join([f"query {query}", *asked.label(query)]), "bold"))
        console.print(_query_table(one, train.label))
        console.print()
    for note in _notes(best, len(asked.position) or best.sizes["query"]):
        console.print(Text(note, "dim"))


def _query_table(one: xr.Dataset, label: Callable[[Any], tuple[str, ...]]) -> Table:
    view = _table()
    view.add_column("", width=2, justify="right")
    for direction, style in (("raises", "cyan"), ("lowers", "magenta")):
        view.add_column(direction, style=style, ratio=1)
        view.add_column("score ± error", no_wrap=True)
    for rank in range(one.sizes["rank"]):
        sides = (one.sel(direction=d).isel(rank=rank) for d in ("raises", "lowers"))
        view.add_row(str(rank + 1), *(text for cell in sides for text in _pair(cell, label)))
    return view


def _pair(cell: xr.Dataset, label: Callable[[Any], tuple[str, ...]]) -> tuple[Text, Text]:
    """Return the row and its score; dim and with a question mark where it is not resolved."""
    from ppl_bif.plots.captions import score_text

    train, resolved = cell["train"].item(), bool(cell["resolved"])
    score = score_text(float(cell["influence"]), float(cell["mcse"]))
    style = "" if resolved else "dim"
    name = " · ".join([str(train), *label(train)])
    return Text(name, style), Text(score if resolved else f"{score} ?", style)


def _notes(best: xr.Dataset, queries: int) -> Iterator[str]:
    from ppl_bif.plots.captions import UNRESOLVED, reading

    yield reading(best.attrs)
    rate = f"{best.attrs['fdr']:.0%}"
    yield f"? {UNRESOLVED}: not told apart from 0 at a false discovery rate of {rate}."
    if lost := best.attrs["chains_excluded"]:
        yield f"Diverged, and left out: chain {', '.join(map(str, lost))}."
    if best.sizes["query"] < queries:
        yield f"{best.sizes['query']} of {queries} queries; name others with --query."


def _rows(best: xr.Dataset) -> Iterator[Row]:
    best = best.transpose("query", "direction", "rank")
    queries, directions = best["query"].values.tolist(), best["direction"].values.tolist()
    names = ("train", "influence", "mcse", "resolved")
    columns = [best[name].values.ravel().tolist() for name in names]
    places = np.ndindex(*best["train"].shape)
    for (at, side, rank), train, score, error, resolved in zip(places, *columns, strict=True):
        where = queries[at], directions[side], rank + 1
        yield Row(*where, train, _number(score), _number(error), resolved)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_csv(best: xr.Dataset) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(_rows(best))
    return text.getvalue()


def _as_json(best: xr.Dataset) -> str:
    content = {"settings": best.attrs, "rows": [row._asdict() for row in _rows(best)]}
    return json.dumps(content, indent=2, default=lambda value: value.item())
