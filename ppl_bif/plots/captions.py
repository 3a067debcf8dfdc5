"""Words for numbers and ids: a score and its error in, the text shown for them out."""

from math import floor, isfinite, log10
from typing import Any

__all__ = [
    "UNRESOLVED",
    "criterion",
    "quantity",
    "reading",
    "score_lines",
    "score_text",
    "shorten",
]

UNRESOLVED = "unresolved"
MINUS = "\N{MINUS SIGN}"


def score_text(score: float, error: float) -> str:
    """Write a score with its standard error, both to two digits of the error.

    Parameters
    ----------
    score
        The influence, with its sign.
    error
        Its Monte Carlo standard error, in the same unit; NaN where it could not be estimated.

    Returns
    -------
    str
        Very large and very small ones share a power of ten.

    Examples
    --------
    >>> score_text(0.12345, 0.0113)
    '+0.123 ± 0.011'
    >>> score_text(-2.5e-7, 1.3e-8)
    '(−2.50 ± 0.13)e−7'
    >>> score_text(0.5, float("nan"))
    '+0.50 ± ?'
    """
    value, spread, power = _digits(score, error)
    return f"({value} ± {spread}){power}" if power else f"{value} ± {spread}"


def score_lines(score: float, error: float) -> tuple[str, str]:
    """Write what `score_text` writes on two short lines, for a narrow caption.

    Examples
    --------
    >>> score_lines(0.12345, 0.0113)
    ('+0.123', '± 0.011')
    """
    value, spread, power = _digits(score, error)
    return f"{value}{power}", f"± {spread}{power}"


def _digits(score: float, error: float) -> tuple[str, str, str]:
    """Round a score and its error alike; give both and the power of ten they share."""
    if not isfinite(score):
        return "not finite", "?", ""
    known = isfinite(error) and error > 0
    size = max(abs(score), error if known else 0.0)
    power = floor(log10(size)) if size > 0 else 0
    power = 0 if -4 < power < 5 else power
    last = floor(log10(error)) - 1 if known else (floor(log10(size)) - 1 if size > 0 else -2)
    places = min(max(power - last, 0), 8)
    value = f"{score / 10**power:+.{places}f}".replace("-", MINUS)
    spread = f"{error / 10**power:.{places}f}" if isfinite(error) else "?"
    return value, spread, f"e{power}".replace("-", MINUS) if power else ""


def shorten(value: Any, width: int) -> str:
    """Cut the middle out of a long id or label.

    Examples
    --------
    >>> shorten("n01440764_10026.JPEG", 12)
    'n01440….JPEG'
    """
    text = str(value)
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def reading(attrs: dict[str, Any]) -> str:
    """Say in one sentence what a score of this kind means, with its sign and scale.

    Parameters
    ----------
    attrs
        Attributes of what `ppl_bif.influence` or `ppl_bif.top` returned.
    """
    if attrs.get("kind") == "correlation":
        return (
            "A score is the correlation, between -1 and 1, of a training row's log-likelihood with "
            "the query's over the local posterior: positive where more weight on the row raises "
            "the query's log-likelihood, negative where it lowers it."
        )
    return (
        "A score is the change of the query's expected log-likelihood, in nats, per unit of extra "
        "weight on a training row: positive where the row raises it, negative where it lowers it; "
        "a weight of 1 is the row once more in the training set."
    )


def quantity(attrs: dict[str, Any]) -> str:
    """Name what a score of this kind is, for an axis; of an observable the unit is its own."""
    return "correlation" if attrs.get("kind") == "correlation" else "influence, per unit of weight"


def criterion(attrs: dict[str, Any]) -> str:
    """Say what was asked of a score to be called resolved."""
    rate = attrs.get("fdr")
    return "two standard errors" if rate is None else f"a false discovery rate of {rate:.0%}"
