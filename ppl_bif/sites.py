"""Which weights are sampled: names, glob patterns or a mask in, the chosen names out."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

__all__ = ["Sites", "select_sites"]

Sites = str | Sequence[str] | Mapping[str, bool] | None


def select_sites(names: Sequence[str], sites: Sites) -> list[str]:
    """Choose the sampled weights among ``names``.

    Parameters
    ----------
    names
        All weights of the network, in order.
    sites
        ``None`` for all of them, a glob pattern or several (``"layers.*.weight"``), or a mask
        from names to ``True`` (sampled) and ``False`` (held at the trained value).

    Returns
    -------
    list of str
        The sampled names, in the order of ``names``.

    Raises
    ------
    ValueError
        If a pattern or a name of the mask matches no weight, or nothing is left to sample.

    Examples
    --------
    >>> select_sites(["0.weight", "0.bias", "2.weight"], "*.weight")
    ['0.weight', '2.weight']
    """
    if sites is None:
        return list(names)
    if isinstance(sites, Mapping):
        patterns, chosen = list(sites), [n for n in names if sites.get(n, False)]
    else:
        patterns = [sites] if isinstance(sites, str) else list(sites)
        chosen = [n for n in names if any(_matches(n, p) for p in patterns)]
    exact = isinstance(sites, Mapping)
    unknown = [p for p in patterns if not any(n == p if exact else _matches(n, p) for n in names)]
    if unknown:
        raise ValueError(f"sites {unknown} match no weight of the network; it has {list(names)}")
    if not chosen:
        raise ValueError(f"sites {sites!r} leave no weight to sample; the network has {names}")
    return chosen


def _matches(name: str, pattern: str) -> bool:
    # A name may hold brackets, which as a pattern do not match themselves.
    return name == pattern or fnmatchcase(name, pattern)
