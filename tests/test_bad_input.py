"""Bad input: each case gives an error that says what to do, and nothing is written."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import ppl_bif as bif
from ppl_bif.schema import inference_data
from tests.backends import random_layers

ROWS, COLUMNS, CLASSES = 12, 3, 2
NAN = float("nan")
EMPTY = type("Empty", (), {"__len__": lambda _: 0, "__getitem__": lambda _, i: i})()


def good_data(rows=ROWS):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, COLUMNS)).astype(np.float32)
    return x, rng.integers(CLASSES, size=rows)


def layers():
    return random_layers([COLUMNS, 4, CLASSES])


def run(backend, store, *, model=None, settings=None, **changes):
    """Sample as little as can be, with some arguments replaced."""
    kernel = backend.SGLD(
        model or backend.mlp(layers()), **{"step_size": 1e-3, "batch_size": 4, **(settings or {})}
    )
    given = {"train": good_data(), "query": good_data(5), "draws": 2, "warmup": 0, "chains": 2}
    return bif.sample(kernel, store=store, **{**given, **changes})


def changed(at, value, rows=ROWS):
    """Return good data with one array replaced: what ``value`` makes of the good one."""
    data = list(good_data(rows))
    data[at] = value(data[at])
    return tuple(data)


def put(value):
    def replace(array):
        array[3] = value
        return array

    return replace


def case(name, error, message, **arguments):
    return pytest.param(error, message, arguments, id=name)


# Cases are arguments of ``run``; the message is a pattern of what was expected, what came, what to
# do.
DATA = [
    case("columns", ValueError, r"could not be run on train rows.*\(5,\).*pass data and weights",
         train=changed(0, lambda x: np.ones((ROWS, 5), np.float32))),
    case("query columns", ValueError, r"could not be run on query rows.*\(2,\).*pass data",
         query=changed(0, lambda x: x[:, :2], rows=5)),
    case("strings", TypeError, r"train array '0' must hold numbers; got dtype <U1.*encode it",
         train=changed(0, lambda x: np.full((ROWS, COLUMNS), "a"))),
    case("objects", TypeError, r"must hold numbers; got dtype object",
         train=changed(0, lambda x: x.astype(object))),
    case("complex", TypeError, r"must hold numbers; got dtype complex64",
         train=changed(0, lambda x: x.astype(np.complex64))),
    case("one row", ValueError, r"train array '1' must have rows along its first axis; got 0-d",
         train=changed(1, lambda y: np.int64(1))),
    case("an array alone", TypeError, r"train must be a tuple of arrays such as \(x, y\).*ndarray",
         train=good_data()[0]),
    case("no targets", ValueError, r"train needs inputs and targets, such as \(x, y\); got 1",
         train=good_data()[:1]),
    case("unnamed targets", ValueError, r"targets under one of \('y', 'labels', 'target'\); got",
         train={"x": good_data()[0], "z": good_data()[1]}),
    case("text", TypeError, r"each item of train must be a tuple such as \(x, y\).*str", train="x"),
    case("None", TypeError, r"query must be a tuple of arrays.*NoneType", query=None),
    case("empty", ValueError, r"query is empty: at least one row is needed",
         query=good_data(0)),
    case("empty dataset", ValueError, r"query is empty: at least one row is needed",
         query=EMPTY),
    case("mismatched rows", ValueError, r"as many rows as each other; got {'0': 12, '1': 11}",
         train=changed(1, lambda y: y[1:])),
    case("NaN", ValueError, r"train array '0' must be finite; rows \[3\] \(1 in all\).*impute",
         train=changed(0, put(NAN))),
    case("infinity", ValueError, r"query array '0' must be finite; rows \[3\]",
         query=changed(0, put(np.inf), rows=5)),
    case("label too high", ValueError, r"train targets must lie in 0 \.\.\. 1.*got 0 \.\.\. 2",
         train=changed(1, put(2))),
    case("label below 0", ValueError, r"query targets must lie in 0 \.\.\. 1.*got -1",
         query=changed(1, put(-1), rows=5)),
    case("float labels", TypeError, r"train targets must be integer classes; got dtype float64",
         train=changed(1, lambda y: y.astype(float))),
    case("one-hot labels", ValueError, r"expects train targets \(row\).*got shape \(12, 2\)",
         train=changed(1, lambda y: np.eye(2, dtype=int)[y])),
    case("ids that repeat", ValueError, r"train_ids must differ from each other; \['a'\] repeat",
         train_ids=["a"] * 2 + list(range(10))),
    case("mixed ids that repeat", ValueError, r"query_ids must differ.*\['1'\] repeat",
         query_ids=np.array([1, "1", 2, 3, 4], object)),
    case("too few ids", ValueError, r"query_ids must name each of the 5 rows once; got.*\(4,\)",
         query_ids=range(4)),
    case("table of ids", ValueError, r"query_ids must name each of the 5 rows once; got.*\(5, 1\)",
         query_ids=np.arange(5)[:, None]),
]  # fmt: skip

SETTINGS = [
    *[case(f"chains={v}", ValueError, r"chains must be a whole number of at least 1; got", chains=v)
      for v in (0, -1, 1.5, True, NAN)],
    *[case(f"draws={v}", ValueError, r"draws must be a whole number of at least 2; got", draws=v)
      for v in (1, 0, 2.0, True)],
    *[case(f"warmup={v}", ValueError, r"warmup must be a whole number of at least 0; got", warmup=v)
      for v in (-1, False, 1.0)],
    *[case(f"seed={v}", ValueError, r"seed must be a whole number of at least 0; got", seed=v)
      for v in (-1, None)],
    case("evaluation_batch_size=0", ValueError, r"evaluation_batch_size must be a whole number",
         evaluation_batch_size=0),
    *[case(f"{name}={v}", ValueError, rf"{name} must be a whole number of at least 1; got",
           settings={name: v})
      for name in ("batch_size", "steps_per_draw") for v in (0, -2, 2.5, True)],
    *[case(f"step_size={v}", ValueError, r"step_size must be a positive number; got",
           settings={"step_size": v})
      for v in (0, -1e-3, NAN, float("inf"), True, "auto")],
    *[case(f"temperature={v}", ValueError, r"temperature must be a number of at least 0; got",
           settings={"temperature": v})
      for v in (-1, NAN, float("inf"), True, "hot", None)],
    case("batch larger than data", ValueError,
         r"batch_size must be at most the 12 training rows; got 13: pass batch_size=12",
         settings={"batch_size": 13}),
    case("chain_method", ValueError, r"chain_method must be 'auto', 'vectorized' or 'sequential'",
         chain_method="parallel"),
    case("saved sites", ValueError, r"sites \['V\*'\] match no weight of the network; it has",
         save_weights="V*"),
    case("slash in constant_data", ValueError, r"must not contain '/'; got 'a/b'",
         constant_data={"a/b": 1}),
    case("ids in constant_data", ValueError, r"must not hold 'train', which names the rows' ids",
         constant_data={"train": ("train", np.arange(ROWS))}),
    case("constant_data of other rows", ValueError, r"train",
         constant_data={"train_image": (("train", "y"), np.ones((5, 2)))}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "arguments"), DATA + SETTINGS)
def test_sample_refuses(backend, tmp_path, error, message, arguments):
    with pytest.raises(error, match=message):
        run(backend, tmp_path / "run.zarr", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["localization", "inverse_temperature"])
@pytest.mark.parametrize("value", [0, -1, NAN, float("inf"), True, "high", None])
def test_localize_refuses_settings(backend, name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive number; got"):
        backend.mlp(layers(), **{name: value})


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (ValueError, r"likelihood must be one of .*'categorical'.*; got 'softmax'",
         {"likelihood": "softmax"}),
        (TypeError, r"likelihood must be one of .* or a callable .*; got None",
         {"likelihood": None}),
        (TypeError, r"likelihood must take \(outputs\).*; it takes 3 arguments",
         {"likelihood": lambda a, b, c: a}),
        (ValueError, r"sites \['V0'\] match no weight of the network; it has \['W0'",
         {"sites": ["W*", "V0"]}),
        (ValueError, r"sites .* leave no weight to sample", {"sites": {"W0": False}}),
        (ValueError, r"sites .* leave no weight to sample", {"sites": []}),
    ],
)  # fmt: skip
def test_localize_refuses(backend, error, message, settings):
    with pytest.raises(error, match=message):
        backend.mlp(layers(), **settings)


@pytest.mark.parametrize("sites", [None, "W0"])
@pytest.mark.parametrize("value", [NAN, -np.inf])
def test_weights_that_are_not_finite(backend, value, sites):
    broken = layers()
    broken[1][0][0, 0] = value
    with pytest.raises(ValueError, match="weight 'W1' holds NaN or infinity: is the network train"):
        backend.mlp(broken, sites=sites)


def test_log_likelihoods_that_are_not_finite(backend, tmp_path):
    model = backend.mlp(layers(), likelihood=lambda out, batch: out[:, 0] / 0, localization=1.0)
    with pytest.raises(ValueError, match=r"train rows \['a', 'b'.*not finite at the trained wei"):
        run(backend, tmp_path / "run.zarr", model=model, train_ids=list("abcdefghijkl"))
    assert not list(tmp_path.iterdir())


def _distribution(backend):
    if backend.name == "pyro":
        import pyro.distributions as dist
    else:
        import numpyro.distributions as dist
    return dist


LIKELIHOODS = [
    ("(N, 1)", r"log-likelihoods \(row,\) or \(row, token\); for 3 rows of train.*\(3, 1\).*squeez",
     lambda dist: lambda out, batch: -(out[:, :1] ** 2)),
    ("(N, N) by broadcasting", r"for 3 rows of train it gave shape \(3, 3\): squeeze the network's",
     lambda dist: lambda out: dist.Normal(out[:, :1], 1.0)),
    ("()", r"for 3 rows of train it gave shape \(\)", lambda dist: lambda out, batch: out.sum()),
    ("(N, 2, 2)", r"gave shape \(3, 2, 2\)",
     lambda dist: lambda out, batch: out[:, :, None] + out[:, None]),
    ("array from one argument", r"likelihood could not be evaluated.*must take \(outputs\) and giv",
     lambda dist: lambda out: out[:, 0]),
    ("distribution from two", r"likelihood could not be evaluated.*must take \(outputs\) and give",
     lambda dist: lambda out, batch: dist.Normal(out, 1.0)),
    ("outputs that do not fit", r"likelihood could not be evaluated on outputs.*targets \(\d,\)",
     lambda dist: lambda out, batch: out.reshape(4, 7)[:, 0]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "build"), [pytest.param(m, b, id=i) for i, m, b in LIKELIHOODS]
)
def test_likelihood_of_another_shape(backend, tmp_path, message, build):
    model = backend.mlp(layers(), likelihood=build(_distribution(backend)))
    with pytest.raises(ValueError, match=message):
        run(backend, tmp_path / "run.zarr", model=model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("likelihood", ["normal", "bernoulli"])
def test_outputs_and_targets_of_other_shapes(backend, tmp_path, likelihood):
    model = backend.mlp(random_layers([COLUMNS, 1]), likelihood=likelihood)
    data = changed(1, np.float32)
    with pytest.raises(ValueError, match=r"gives \(row, 1\) and train has targets \(row, \): sque"):
        run(backend, tmp_path / "run.zarr", model=model, train=data)
    assert not list(tmp_path.iterdir())


def test_bernoulli_targets_other_than_0_and_1(backend, tmp_path):
    model = backend.linear(np.ones(COLUMNS), likelihood="bernoulli")
    with pytest.raises(ValueError, match="expects 0 and 1; train targets hold others"):
        run(backend, tmp_path / "run.zarr", model=model, train=changed(1, put(2)))
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_no_classes(backend, tmp_path):
    model = backend.linear(np.ones(COLUMNS), likelihood="categorical")
    with pytest.raises(ValueError, match=r"expects outputs \(row, class\); the network gives"):
        run(backend, tmp_path / "run.zarr", model=model)
    assert not list(tmp_path.iterdir())


def test_not_a_kernel():
    with pytest.raises(TypeError, match=r"what localize\(\) made, or a kernel such as .*dict"):
        bif.sample({}, train=good_data(), query=good_data())


@pytest.mark.pyro
def test_dtypes_that_torch_does_not_mix(tmp_path):
    from tests.backends import get_backend

    with pytest.raises(ValueError, match=r"dtype.*pass data and weights of the shapes and dtypes"):
        run(get_backend("pyro"), tmp_path / "run.zarr", train=changed(0, np.float64))
    assert not list(tmp_path.iterdir())


@pytest.mark.pyro
def test_what_pyro_localize_refuses():
    import torch

    from ppl_bif.pyro import localize

    net = torch.nn.Linear(3, 2)
    good = dict(net.named_parameters())
    with pytest.raises(TypeError, match=r"torch.nn.Module; got function.*ppl_bif.numpyro.localize"):
        localize(lambda p, x: x, good, likelihood="normal")
    with pytest.raises(TypeError, match=r"params must be a mapping from names to tensors.*list"):
        localize(net, list(good.values()), likelihood="normal")
    with pytest.raises(ValueError, match=r"missing \['bias'\], unknown \['b'\]"):
        localize(net, {"weight": good["weight"], "b": good["bias"]}, likelihood="normal")
    with pytest.raises(ValueError, match=r"params\['bias'\] must have shape \(2,\); got \(3,\)"):
        localize(net, {**good, "bias": torch.ones(3)}, likelihood="normal")


@pytest.mark.numpyro
def test_what_numpyro_localize_refuses():
    import jax.numpy as jnp

    from ppl_bif.numpyro import localize

    with pytest.raises(TypeError, match=r"an apply function needs its trained weights"):
        localize(lambda p, x: x, likelihood="normal")
    with pytest.raises(TypeError, match=r"network must be a pure function apply\(params, x\).*got"):
        localize({"w": jnp.ones(3)}, likelihood="normal")
    with pytest.raises(
        TypeError, match=r"weight 'n' must be floating point to be sampled; got int"
    ):
        localize(lambda p, x: x, {"n": jnp.ones(3, int)}, likelihood="normal")
    tree = {"a": {"b": jnp.ones(1)}, "a.b": jnp.ones(1)}
    with pytest.raises(ValueError, match=r"paths of the weights must differ once joined by dots"):
        localize(lambda p, x: x, tree, likelihood="normal")


@pytest.mark.numpyro
def test_jax_weights_that_do_not_fit(tmp_path):
    import jax.numpy as jnp

    from ppl_bif.numpyro import SGLD, localize

    model = localize(lambda p, x: x @ p["w"], {"w": jnp.ones((7, 2))}, likelihood="categorical")
    with pytest.raises(ValueError, match=r"could not be run on train rows.*\(3,\).*pass data"):
        bif.sample(SGLD(model), train=good_data(), query=good_data(), store=tmp_path / "run.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.pyro
@pytest.mark.numpyro
def test_torch_module_given_to_numpyro():
    import torch

    from ppl_bif.numpyro import localize

    net = torch.nn.Linear(3, 2)
    for params in (None, dict(net.named_parameters())):
        with pytest.raises(TypeError, match=r"the torch module Linear, which goes to ppl_bif.pyro"):
            localize(net, params, likelihood="normal")


# Where the store may not be: each makes something at a path, or a path that cannot be made.


def _file(tmp_path):
    path = tmp_path / "run.zarr"
    path.write_text("my notes")
    return path


def _below_file(tmp_path):
    return _file(tmp_path) / "run.zarr"


def _folder(tmp_path):
    (tmp_path / "run.zarr").mkdir()
    (tmp_path / "run.zarr" / "notes.txt").write_text("my notes")
    return tmp_path / "run.zarr"


def _other_zarr(tmp_path):
    root = zarr.open_group(str(tmp_path / "run.zarr"), mode="w")
    root.create_array("mine", shape=(2,), dtype="float32")
    return tmp_path / "run.zarr"


def _proc(tmp_path):
    return Path("/proc/ppl_bif/run.zarr")


PLACES = [
    (_file, r"run.zarr is not a Zarr store of a run: pass"),
    (_below_file, r"cannot write a store at .*; choose a path you may write to"),
    (_folder, r"run.zarr is not a Zarr store of a run: pass"),
    (_other_zarr, r"is a Zarr store, but not of a ppl_bif run: choose another path"),
    (_proc, r"cannot write a store at /proc/.*; choose a path you may write to"),
]


def _listing(path):
    files = [p for p in path.rglob("*") if p.is_file()]
    return {str(p): p.read_bytes() for p in files}


@pytest.mark.parametrize(("place", "message"), PLACES)
def test_store_where_none_may_be(backend, tmp_path, place, message):
    path = place(tmp_path)
    before = _listing(tmp_path)
    with pytest.raises(bif.StoreError, match=message):
        run(backend, path)
    assert _listing(tmp_path) == before


@pytest.mark.parametrize("place", [_file, _folder, _other_zarr, _proc, lambda t: t / "nowhere"])
def test_opening_what_is_no_run(tmp_path, place):
    path = place(tmp_path)
    with pytest.raises(bif.StoreError, match=re.escape(str(path))):
        bif.open_store(path)


# Scores and diagnosis of what is no run.


def made(chains=4, draws=40, **groups):
    rng = np.random.default_rng(0)
    series = {
        f"{name}_obs": (("chain", "draw", name), rng.normal(size=(chains, draws, rows)))
        for name, rows in (("train", 4), ("query", 2))
    }
    return inference_data({"log_likelihood": xr.Dataset(series), **groups}, {})


def posterior():
    weight = xr.Dataset({"w": (("chain", "draw"), np.ones((2, 9)))})
    return inference_data({"posterior": weight}, {})


def no_draws():
    return inference_data({"log_likelihood": xr.Dataset({"y": ("row", np.ones(3))})}, {})


SCORES = [
    ("posterior alone", lambda: bif.influence(posterior()), ValueError,
     r"needs pointwise log-likelihoods: .*no log_likelihood group; make it with ppl_bif.sample"),
    ("another object", lambda: bif.influence(42), TypeError, r"expected an arviz.Infer.*int"),
    ("unknown train", lambda: bif.influence(made(), train="x"), ValueError,
     r"train variable 'x' is not there; there are \['train_obs', 'query_obs'\]"),
    ("unknown query", lambda: bif.influence(made(), query="x"), ValueError, r"query variable 'x'"),
    ("no posterior", lambda: bif.influence(made(), observable="w"), ValueError,
     r"observable 'w' needs a posterior group, and there is none"),
    ("unknown observable",
     lambda: bif.influence(made(posterior=xr.Dataset({"v": (("chain", "draw"), np.ones((4, 40)))})),
                           observable="w"),
     ValueError, r"variable 'w' is not there; there are \['v'\]"),
    ("unknown kind", lambda: bif.influence(made(), kind="loo"), ValueError,
     r"kind must be one of \('covariance', 'correlation'\); got 'loo'"),
    ("no draws", lambda: bif.influence(no_draws()), ValueError,
     r"log-likelihoods must have dims chain and draw; got \['row'\]: rename"),
    ("k above the rows", lambda: bif.top(made(), k=5), ValueError,
     r"k must be at most the 4 training rows; got 5"),
    ("k=0", lambda: bif.top(made(), k=0), ValueError, r"k must be a whole number of at least 1"),
    ("k=2.0", lambda: bif.top(made(), k=2.0), ValueError, r"k must be a whole number of at"),
    ("fdr=1", lambda: bif.top(made(), k=2, fdr=1), ValueError, r"fdr must lie between 0 and 1"),
    ("fdr=NaN", lambda: bif.top(made(), k=2, fdr=NAN), ValueError, r"fdr must lie between 0 and 1"),
    ("top of a posterior", lambda: bif.top(posterior()), ValueError, r"needs pointwise log-li"),
    ("one chain", lambda: bif.diagnose(made(chains=1)), ValueError,
     r"compare chains, and the run has one: sample with chains=2 or more"),
    ("few draws", lambda: bif.diagnose(made(draws=3)), ValueError,
     r"diagnose needs at least 4 draws a chain; the run has 3: sample more"),
    ("nothing to diagnose", lambda: bif.diagnose(posterior()), ValueError,
     r"diagnose needs train_obs and query_obs .*; got \[\]"),
    ("no query to diagnose", lambda: bif.diagnose(no_draws()), ValueError,
     r"diagnose needs train_obs and query_obs .*; got \['y'\]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), [pytest.param(c, e, m, id=i) for i, c, e, m in SCORES]
)
def test_scores_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
