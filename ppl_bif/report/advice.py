"""What a report says in words: the meaning of a verdict, the settings of a run, what to do next."""

from collections.abc import Mapping
from math import ceil, isfinite
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

__all__ = ["VERDICTS", "Step", "next_steps", "settings"]

VERDICTS = {
    "pass": "The chains agree, and agree with the trained weights. The scores can be used.",
    "caution": "The scores marked as resolved can be read; rankings as a whole need more care.",
    "fail": "Do not rely on these scores yet: they may not come out alike in another run.",
}

_HIDDEN = {"completed", "arviz_version", "creation_library"}


class Step(NamedTuple):
    """A piece of advice, and the code that follows it."""

    title: str
    text: str
    code: str = ""


def settings(attrs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the attributes of a run as names and values to print."""
    shown = [name for name in attrs if name not in _HIDDEN]
    return [(name.replace("_", " "), _value(name, attrs[name])) for name in shown]


def _value(name: str, value: Any) -> str:
    if name == "sampling_time" and isinstance(value, float):
        return f"{value:.1f} s"
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(_value("", item) for item in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool) and name != "seed":
        return f"{value:,}"
    return str(value)


def next_steps(check: xr.Dataset, best: xr.Dataset, draws: int) -> list[Step]:
    """Advise on what to do after reading a report.

    Parameters
    ----------
    check
        What `ppl_bif.diagnose` returned.
    best
        What `ppl_bif.top` returned.
    draws
        Draws of each chain.
    """
    steps = [] if check.attrs["verdict"] == "pass" else [_mend(check)]
    needed = float(check["draws_needed"])
    if isfinite(needed) and needed > draws:
        steps.append(_more_draws(needed, draws))
    return [*steps, _look_closer(best), _test_it()]


def _mend(check: xr.Dataset) -> Step:
    return Step(
        "Mend the run first" if check.attrs["verdict"] == "fail" else "Strengthen the run",
        "Each reason under the verdict names a remedy. Change one setting, sample again into a "
        "new store, and compare the two diagnoses.",
    )


def _more_draws(needed: float, draws: int) -> Step:
    rounded = ceil(needed / 100) * 100
    return Step(
        "Sample longer",
        f"Nine in ten of a query's ten strongest scores are resolved at about {rounded:,} draws "
        f"per chain; this run has {draws:,}. Errors shrink with the square root of the draws.",
        f"bif.sample(model, train=..., query=..., draws={rounded})",
    )


def _look_closer(best: xr.Dataset) -> Step:
    query = best["query"].values[0]
    query = query.item() if hasattr(query, "item") else query
    return Step(
        "Look closer at one query",
        "List more rows, with the scores and errors as an xarray Dataset.",
        f"scores = bif.influence(idata)\nbif.top(scores.sel(query=[{query!r}]), k=50)",
    )


def _test_it() -> Step:
    return Step(
        "Test what you conclude",
        "A score is a slope at full weight, averaged over networks near the trained one. Before "
        "acting on a row, retrain without it from several seeds and see whether the query moves "
        "the way its score says.",
    )
