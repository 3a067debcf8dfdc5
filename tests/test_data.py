"""Data in: batches from tuples, mappings and datasets; ids; cutting; fingerprints."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ppl_bif.data import as_batch, as_ids, batches, digest, inputs, map_arrays, num_rows, target
from ppl_bif.signatures import describe

X, Y = np.arange(6.0).reshape(3, 2), np.array([0, 1, 0])


class Rows:
    """An indexable dataset of rows."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return self.make(i)


@pytest.mark.parametrize(
    "data",
    [(X, Y), [X, Y], (X.tolist(), Y.tolist()), Rows(lambda i: (X[i], Y[i]))],
    ids=["tuple", "list", "lists", "dataset"],
)
def test_as_batch_of_positions(data):
    batch = as_batch(data, "train")
    assert isinstance(batch, tuple)
    np.testing.assert_array_equal(batch[0], X)
    np.testing.assert_array_equal(target(batch), Y)
    assert num_rows(batch) == 3
    args, kwargs = inputs(batch)
    assert len(args) == 1
    assert not kwargs


@pytest.mark.parametrize("key", ["y", "labels", "target"])
@pytest.mark.parametrize("rows", [False, True])
def test_as_batch_of_names(key, rows):
    named = {"x": X, key: Y}
    data = Rows(lambda i: {name: a[i] for name, a in named.items()}) if rows else named
    batch = as_batch(data, "train")
    np.testing.assert_array_equal(target(batch), Y)
    args, kwargs = inputs(batch)
    assert not args
    assert list(kwargs) == ["x"]


def test_as_batch_does_not_touch_the_data():
    data = {"x": X.copy(), "y": Y.copy()}
    as_batch(data, "train")["z"] = X
    assert list(data) == ["x", "y"]
    np.testing.assert_array_equal(data["x"], X)


@pytest.mark.pyro
def test_as_batch_of_tensors():
    import torch

    x = torch.tensor(X, requires_grad=True)
    batch = as_batch(torch.utils.data.TensorDataset(x, torch.tensor(Y)), "train")
    np.testing.assert_array_equal(batch[0], X)
    assert batch[1].dtype == np.int64


@pytest.mark.numpyro
def test_as_batch_of_jax_arrays():
    import jax.numpy as jnp

    batch = as_batch((jnp.asarray(X, jnp.float32), jnp.asarray(Y)), "train")
    np.testing.assert_array_equal(batch[0], X)


def test_as_ids():
    np.testing.assert_array_equal(as_ids(None, 3, "train"), [0, 1, 2])
    assert as_ids(["a", "bb", "c"], 3, "train").tolist() == ["a", "bb", "c"]
    assert as_ids(np.array([1, "a"], object), 2, "train").tolist() == ["1", "a"]
    assert as_ids([7, -1], 2, "train").dtype.kind == "i"


@given(rows=st.integers(1, 40), size=st.integers(1, 50), named=st.booleans())
def test_cut_batches_join_to_the_original(rows, size, named):
    x, y = np.random.default_rng(rows).normal(size=(rows, 2)), np.arange(rows)
    batch = {"x": x, "y": y} if named else (x, y)
    parts = list(batches(batch, size))
    assert [num_rows(p) for p in parts[:-1]] == [size] * (len(parts) - 1)
    assert 1 <= num_rows(parts[-1]) <= size
    for key in batch if named else range(2):
        np.testing.assert_array_equal(np.concatenate([p[key] for p in parts]), batch[key])


def test_map_arrays_keeps_names():
    assert map_arrays(len, {"x": X, "y": Y}) == {"x": 3, "y": 3}
    assert map_arrays(len, (X, Y)) == (3, 3)


# Fingerprints.

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4)
)
ARRAYS = hnp.arrays(
    st.sampled_from(["float32", "float64", "int64", "uint8", "bool", "<U3"]),
    hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3),
)
PARTS = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


def normal(part):
    """Reduce a part to a value whose equality is that of the content."""
    if isinstance(part, np.ndarray) and part.dtype.kind == "U":
        return ("texts", part.shape, tuple(part.ravel().tolist()))
    if isinstance(part, np.ndarray):
        return ("array", str(part.dtype), part.shape, part.tobytes())
    if isinstance(part, list | tuple):
        return ("sequence", *map(normal, part))
    if isinstance(part, dict):
        return ("mapping", frozenset((key, normal(value)) for key, value in part.items()))
    return (type(part), repr(part))


def copied(part):
    """Copy a part so that nothing but its content is the same."""
    if isinstance(part, np.ndarray):
        return np.array(part, order="F")
    if isinstance(part, list):
        return tuple(map(copied, part))
    if isinstance(part, dict):
        return {key: copied(part[key]) for key in reversed(part)}
    return part


@given(a=st.lists(PARTS, max_size=3), b=st.lists(PARTS, max_size=3))
def test_digests_are_equal_where_content_is(a, b):
    assert digest(*a) == digest(*map(copied, a))
    assert (digest(*a) == digest(*b)) == (normal(a) == normal(b))


@given(
    array=hnp.arrays("float64", hnp.array_shapes(max_dims=2, max_side=4), elements=st.floats(0, 1)),
    place=st.integers(0, 15),
)
def test_digests_differ_where_one_value_does(array, place):
    other = array.copy()
    other.flat[place % array.size] += 2
    assert digest(array) != digest(other)


PAIRS = [
    ([("ab", "c")], [("a", "bc")]),
    (["ab", "c"], ["a", "bc"]),
    ([1, 23], [12, 3]),
    ([(1,), (2,)], [(1, 2)]),
    ([((1,), 2)], [((1, 2),)]),
    ([{"a": {"b": 1}}], [{"a": {}, "b": 1}]),
    ([{"a": 1}], [("a", 1)]),
    ([{"a": 1}], [{"a": "1"}]),
    ([{}], [()]),
    ([{}], [None]),
    ([], [()]),
    ([np.zeros(2)], [np.zeros((2, 1))]),
    ([np.zeros(2)], [np.zeros(2, np.float32)]),
    ([np.zeros(2), np.zeros(0)], [np.zeros(0), np.zeros(2)]),
    ([np.zeros(1)], [np.zeros(1, np.int64)]),
    ([np.array(["ab", "c"])], [np.array(["a", "bc"])]),
    ([1], [True]),
    ([1], [1.0]),
    ([None], ["None"]),
]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_digests_of_what_is_easily_confused(a, b):
    assert digest(*a) != digest(*b)


def test_digests_of_texts_do_not_depend_on_their_width():
    narrow, wide = np.array(["a", "b"]), np.array(["a", "b"], "<U9")
    assert digest(narrow) == digest(wide) == digest(narrow.astype(object))


# Lasting names of callables.


def scaled(by):
    return lambda x: x * by


def recursive(by):
    def count(x):
        return count(x - by) if x > 0 else x

    return count


DIFFERENT = [
    (lambda x: x + 1, lambda x: x + 2),
    (lambda x: np.tanh(x), lambda x: np.sin(x)),
    (scaled(2), scaled(3)),
    (scaled(np.ones(2)), scaled(np.zeros(2))),
    (scaled(scaled(2)), scaled(scaled(3))),
    (lambda x, by=2: x * by, lambda x, by=3: x * by),
    (lambda x: [i + 1 for i in x], lambda x: [i + 2 for i in x]),
    (recursive(1), recursive(2)),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_functions_that_differ_are_described_differently(one, other):
    assert describe(one) == describe(one)
    assert describe(one) != describe(other)


def test_a_description_lasts_from_process_to_process():
    code = (
        "from ppl_bif.signatures import describe\n"
        "def build(a):\n"
        "    act = lambda x: x + a\n"
        "    return lambda x: [act(i) for i in (lambda y: y)(x)]\n"
        "print(describe(build(object())), describe(build(object())))\n"
    )
    texts = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    one, two = texts[0].stdout.split()
    assert one == two
    assert texts[0].stdout == texts[1].stdout
