"""Stores damaged at random, by bytes and by meaning: read, or refused, and nothing else."""

import json
import os
import shutil
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ppl_bif as bif
from ppl_bif.schema import group
from tests.test_store import GROUPS, fake_run

pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
# What is larger is not loaded: a store may say so many values and hold none.
MOST_BYTES = 2**24


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    run = fake_run(path, constant_data={"words": ("train", list("abcdefghij"))})
    return path, run


def files(path):
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def damaged(whole):
    """A copy to be damaged, made anew each time."""
    path = whole[0].with_name("b.zarr")

    def copy():
        shutil.rmtree(path, ignore_errors=True)
        return shutil.copytree(whole[0], path)

    return copy


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**63, 10**30, -1])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["/etc/passwd", "../..", "pickle", "object", "float128", "sharding_indexed"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "configuration", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def replaced(tree, pick, value):
    """Put a value in place of one of the nodes of a tree of JSON."""
    places = []

    def walk(node):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(tree)
    node, key = places[pick % len(places)]
    node[key] = value
    return tree


def read(path):
    """Read all of a run that is of a size to be read."""
    run = bif.open_store(path)
    for name in GROUPS:
        dataset = group(run, name)
        for variable in dataset.variables.values() if dataset is not None else ():
            if variable.nbytes < MOST_BYTES:
                variable.load()
    return run


def survives(path):
    """Read it, and go on with it; say what of its traces was read."""
    try:
        run = read(path)
        traces = np.asarray(run["log_likelihood"]["train_obs"][:, :6])
    except (bif.StoreError, KeyError):
        traces = None
    with suppress(bif.BIFError):
        fake_run(path, draws=9, constant_data={"words": ("train", list("abcdefghij"))})
    return traces


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_bytes(whole, damaged, data):
    path = damaged()
    file = path / data.draw(st.sampled_from(files(path)))
    content = bytearray(file.read_bytes())
    how = data.draw(st.sampled_from(["flip", "cut", "fill", "more"]))
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    if how == "flip" and content:
        content[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        content = content[:at]
    elif how == "fill":
        content[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    else:
        content += data.draw(st.binary(min_size=1, max_size=20))
    file.write_bytes(content)
    traces = survives(path)
    if traces is not None and file.suffix != ".json":
        np.testing.assert_array_equal(traces, whole[1]["log_likelihood"]["train_obs"])


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_metadata(damaged, data):
    path = damaged()
    texts = [file for file in files(path) if file.suffix == ".json"]
    file = path / data.draw(st.sampled_from(texts))
    tree = json.loads(file.read_text())
    changed = replaced(tree, data.draw(st.integers(0, 500)), data.draw(VALUES))
    file.write_text(json.dumps(changed))
    survives(path)


@settings(max_examples=EXAMPLES // 3)
@given(data=st.data())
def test_lost_files(whole, damaged, data):
    path = damaged()
    file = data.draw(st.sampled_from(files(path)))
    (path / file).unlink()
    survives(path)
