"""Fixtures that several files of tests share."""

import atexit
import os
import shutil
import sys
import tempfile

import pytest
from hypothesis import settings

from tests.backends import BACKENDS, get_backend, marked

# Many tests compile the same programs: what one has compiled, those after it read. Each process of
# tests has a folder of its own.
COMPILED = tempfile.mkdtemp(prefix="compiled-")
atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

# The same examples each time, and no limit that a busy machine would break.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("suite")


@pytest.fixture(params=marked(BACKENDS))
def backend(request):
    """Each backend in turn; one that is not installed is skipped."""
    return get_backend(request.param)


@pytest.fixture(scope="module", autouse=True)
def _programs():
    """Let go of what JAX compiled: each program holds memory maps, of which Linux gives 65,530."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
