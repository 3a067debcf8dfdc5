"""Leaves out what cannot run here: tests and doctests of a backend that is not installed."""

from importlib.util import find_spec

import pytest

NEEDS = {"pyro": ("torch", "pyro"), "numpyro": ("jax", "numpyro")}
MISSING = {backend for backend, names in NEEDS.items() if not all(map(find_spec, names))}

collect_ignore_glob = [
    f"{place}/{backend}/*" for backend in MISSING for place in ("ppl_bif", "tests")
]
# They import what not everybody has, and what warns as it is imported.
collect_ignore = ["ppl_bif/doors/dattri.py", "ppl_bif/doors/quanda.py"]
if find_spec("tokenizers") is None:
    collect_ignore.append("ppl_bif/text.py")


def pytest_collection_modifyitems(items):
    for item in items:
        for backend in MISSING & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.skip(reason=f"{backend} is not installed"))
