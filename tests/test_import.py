"""Importing the package is light, and its names are functions however they were reached."""

import subprocess
import sys

import ppl_bif as bif


def test_neither_framework_is_loaded():
    code = "import sys, ppl_bif; print({'torch', 'jax', 'arviz', 'xarray'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_public_names_are_callable_each_time():
    for _ in range(2):
        assert all(callable(getattr(bif, name)) for name in bif.__all__)
    assert set(bif.__all__) <= set(dir(bif))
