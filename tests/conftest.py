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

# These draw so much that it pays to compile well; elsewhere compiling is what takes the time.
LONG = ("backends_agree", "calibration", "coverage", "damped_limit", "nuts", "stationary")
QUICK = "jax_disable_most_optimizations"

# The same examples each time, and no limit that a busy machine would break.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("suite")


@pytest.fixture(params=marked(BACKENDS))
def backend(request):
    """Each backend in turn; one that is not installed is skipped."""
    return get_backend(request.param)


@pytest.fixture(scope="module", autouse=True)
def _programs(request):
    """Compile well or quickly, also in processes of a test, and let go of what was compiled.

    Each program of JAX holds memory maps, of which Linux gives 65,530.
    """
    quick = request.path.stem.removeprefix("test_") not in LONG
    os.environ[QUICK.upper()] = str(quick)
    if "jax" in sys.modules:
        sys.modules["jax"].config.update(QUICK, quick)
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
