"""Scores by gradients at the draws are the covariance, with less noise, in both backends."""

import tracemalloc

import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.low_rank import Spread, lanczos
from ppl_bif.schema import group
from tests.backends import random_layers
from tests.truth import make_linear

pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")


def sampled(model, data, **settings):
    return bif.sample(model, **data, progress=False, save_weights=True, **settings)


def test_ritz_pairs_and_the_inverse_are_those_of_a_matrix():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(12, 30)).astype(np.float32)
    matrix = root.T @ root
    values, vectors = lanczos(lambda v: matrix @ v, 30, 30)
    np.testing.assert_allclose(values[-12:], np.linalg.eigvalsh(matrix)[-12:], rtol=1e-4)
    inverse = np.linalg.inv(matrix + 3.0 * np.eye(30))
    found = Spread(np.maximum(values, 0), vectors, 3.0).times(np.eye(30, dtype=np.float32))
    np.testing.assert_allclose(found, inverse, atol=1e-5)


def test_a_space_that_is_exhausted_is_enough():
    """A Hessian of rank 2 has three different eigenvalues: so many images tell it."""
    root = np.random.default_rng(1).normal(size=(2, 40)).astype(np.float32)
    values, vectors = lanczos(lambda v: root.T @ (root @ v), 40, 40)
    assert len(values) == len(vectors) < 10
    np.testing.assert_allclose((vectors.T * values) @ vectors, root.T @ root, atol=2e-4)


def differences(log_likelihood, at, step=1e-2):
    """Central differences along each weight, ``(d, ...)``."""
    moves = step * np.eye(len(at))
    return np.stack([log_likelihood(at + m) - log_likelihood(at - m) for m in moves]) / (2 * step)


@pytest.fixture
def small(backend):
    """A localized MLP of 23 weights, its rows, and its derivatives."""
    rng = np.random.default_rng(0)
    rows = np.float32(rng.normal(size=(30, 3))), rng.integers(3, size=30)
    data = {"train": rows, "query": tuple(a[:7] for a in rows)}
    model = backend.mlp(random_layers([3, 3, 3]), localization=2.0, inverse_temperature=0.5)
    return model, data, model.make_slopes(data)


def test_slopes_are_differences(small):
    """Of rows, along directions, of the potential, and of its slope, at two points."""
    model, _, slopes = small
    names, rng = sorted(model.mode), np.random.default_rng(1)
    mode = np.concatenate([np.asarray(model.mode[name]).ravel() for name in names])
    points = np.float32(mode + 0.1 * rng.normal(size=(2, len(mode))))
    directions = np.float32(rng.normal(size=(4, len(mode))))
    of_rows = [differences(lambda w: slopes.log_likelihood("train", w), at).T for at in points]
    mean = np.mean(of_rows, axis=0)
    np.testing.assert_allclose(slopes.gradients("train", points), mean, atol=2e-3)
    along = slopes.along("train", points, directions)
    np.testing.assert_allclose(along, directions @ mean.T, atol=1e-2)
    uphill = np.stack(
        [
            -0.5 * rows.sum(axis=0) + 2.0 * (at - mode)
            for rows, at in zip(of_rows, points, strict=True)
        ]
    )
    np.testing.assert_allclose(slopes.uphill(points, directions), uphill @ directions.T, atol=0.05)
    chosen = np.stack([rng.permutation(30), rng.permutation(30)])

    def mean_slope(offset):
        pulled = slopes.uphill(points + np.float32(offset), np.eye(len(mode), dtype=np.float32))
        return pulled.mean(axis=0) - 2.0 * (points.mean(axis=0) + offset - mode)

    hessian = differences(mean_slope, np.zeros(len(mode)))
    product = slopes.hessian(points, chosen)
    images = [product(v) for v in directions]
    np.testing.assert_allclose(images, directions @ hessian, atol=0.02)


def test_a_linear_model_needs_no_draws_but_for_its_curvature(backend):
    """Its covariances in closed form: of g's slopes and half the traces of products."""
    truth = make_linear(60, 4)
    data = {"train": truth.data, "query": tuple(a[:5] for a in truth.data)}
    settings = {"localization": truth.gamma, "inverse_temperature": truth.beta}
    model = backend.linear(truth.mode, **settings)
    run = sampled(model, data, draws=400)
    found = bif.refine(run, model, **data, gradient_draws=1600, shrink=None)
    queries = truth.x[:5], truth.y[:5], truth.covariance()
    expected = truth.influence(*queries)
    scale = np.sqrt((expected**2).mean())
    value, error = found["influence"].values, found["mcse"].values
    off = found["first_order"].values - truth.first_order(*queries)
    assert np.sqrt((off**2).mean()) < 0.03 * scale
    # Of four weights, told by eight blocks: as rough as that.
    known = found["first_order_mcse"].values
    assert 0.3 < np.sqrt((off**2).mean() / (known**2).mean()) < 3
    assert (error >= found["share"].values[:, None] * known).all()
    assert np.polyfit(expected.ravel(), value.ravel(), 1)[0] == pytest.approx(1, abs=0.05)
    assert 0.6 < np.sqrt((((value - expected) / error) ** 2).mean()) < 1.5
    plain = bif.influence(run, shrink=None)["mcse"].values
    assert np.sqrt((error**2).mean()) < 0.8 * np.sqrt((plain**2).mean())
    assert np.median(found["share"]) == pytest.approx(1, abs=0.1)


def test_it_is_the_covariance_of_a_network_with_less_noise(small):
    """Against another run of many more draws."""
    model, data, _ = small
    truth = bif.influence(sampled(model, data, draws=3000, seed=1), shrink=None)
    run = sampled(model, data, draws=300)
    plain = bif.influence(run, shrink=None)
    for few in (90, 5):  # curvatures: all there are, and fewer than narrow the posterior
        how = {"curvatures": few, "gradient_draws": 1200, "shrink": None}
        found = bif.refine(run, model, **data, **how)
        off = (found["influence"] - truth["influence"]).values
        error = np.hypot(found["mcse"].values, truth["mcse"].values)
        assert 0.6 < np.sqrt(((off / error) ** 2).mean()) < 1.5
        assert float((found["mcse"] ** 2).mean()) < 0.8 * float((plain["mcse"] ** 2).mean())
        assert (found["variance_left"] < 0.9).all()
        slope = np.polyfit(truth["influence"].values.ravel(), found["influence"].values.ravel(), 1)
        assert slope[0] == pytest.approx(1, abs=0.1)


def test_scores_are_labelled_and_ranked_as_others(small):
    model, data, _ = small
    ids = {"train_ids": [f"t{i}" for i in range(30)], "query_ids": list("abcdefg")}
    run = sampled(model, data, draws=50, **ids)
    found = bif.refine(run, model, **data)
    assert found["influence"].dims == ("query", "train")
    assert found["train"].values.tolist() == ids["train_ids"]
    assert found["query"].values.tolist() == ids["query_ids"]
    assert found.attrs["query_variable"] == "query_obs"
    assert found.attrs["gradient_draws"] == 200
    best = bif.top(found, k=3)
    assert best["train"].shape == (7, 2, 3)


def independent(run, truth, queries, seed):
    """Put independent draws of a linear model's posterior, and their losses, into a run."""
    spread, rng = np.linalg.cholesky(truth.covariance()), np.random.default_rng(seed)
    w = group(run, "posterior")["w"]
    w.values[...] = truth.mean() + rng.normal(size=w.shape) @ spread.T
    for name, rows in (("train_obs", slice(None)), ("query_obs", slice(queries))):
        off = truth.y[rows] - w.values @ truth.x[rows].T
        group(run, "log_likelihood")[name].values[...] = -0.5 * (np.log(2 * np.pi) + off**2)


def test_errors_are_right_also_of_the_largest_scores(backend):
    """Of independent draws, by eight blocks, whose t has a standard deviation of 1.18."""
    truth = make_linear(200, 12)._replace(beta=1.0)
    data = {"train": truth.data, "query": tuple(a[:20] for a in truth.data)}
    model = backend.linear(truth.mode, localization=truth.gamma)
    run = sampled(model, data, draws=40)
    expected = truth.first_order(truth.x[:20], truth.y[:20], truth.covariance())
    off = []
    how = {"first_order": True, "shrink": None, "curvatures": 20, "curvature_rows": 1600}
    for seed in range(8):
        independent(run, truth, 20, seed)
        found = bif.refine(run, model, **data, **how, gradient_draws=160)
        off.append((found["influence"] - expected) / found["mcse"])
    off = np.stack(off)
    assert 0.8 < np.sqrt((off**2).mean()) < 1.2
    largest = np.abs(expected) > np.quantile(np.abs(expected), 0.98)
    assert 0.8 < np.sqrt((off[:, largest] ** 2).mean()) < 1.4


def test_shrinking_keeps_the_first_order_of_long_gradients(backend):
    """Few draws, and rows of many sizes: the largest scores have the largest errors."""
    rng, truth = np.random.default_rng(5), make_linear(200, 100, gamma=1.0)
    x = truth.x * np.exp(0.7 * rng.normal(size=(200, 1)) - 0.5)
    truth = truth._replace(x=x, y=x @ rng.normal(size=100) + rng.normal(size=200))
    data = {"train": truth.data, "query": tuple(a[:20] for a in truth.data)}
    model = backend.linear(truth.mode, localization=truth.gamma)
    run = sampled(model, data, draws=8)
    expected = truth.first_order(truth.x[:20], truth.y[:20], truth.covariance())
    off, wrong = [], []
    for seed in range(6):
        independent(run, truth, 20, seed)
        found = bif.refine(run, model, **data, first_order=True, curvature_rows=400)
        off.append([np.square(found[n] - expected).mean() for n in ("influence", "first_order")])
        sure = found["resolved"].values
        assert sure.mean() > 0.1
        wrong.append((np.sign(found["influence"]) != np.sign(expected)).values[sure])
    shrunk, plain = np.mean(off, axis=0)
    assert shrunk < 1.2 * plain
    assert np.concatenate(wrong).mean() < 0.025


def test_queries_are_held_twice(backend, monkeypatch):
    """Their directions in all draws, and those in a block; beside 256 gradients of rows.

    JAX lets go of what it was given some time later, on a busy machine after the next block began.
    """
    rng = np.random.default_rng(0)
    rows = np.float32(rng.normal(size=(150, 30))), rng.integers(10, size=150)
    data = {"train": tuple(a[:40] for a in rows), "query": rows}
    model = backend.mlp(random_layers([30, 100, 10]), localization=1e4)
    run = sampled(model, data, draws=8)
    held, times = [], Spread.times
    arrays = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)

    def watched(self, vectors):
        found = times(self, vectors)
        traces = tracemalloc.take_snapshot().filter_traces([arrays]).traces
        held.append(sum(trace.size for trace in traces))
        return found

    monkeypatch.setattr(Spread, "times", watched)
    tracemalloc.start()
    bif.refine(run, model, **data, first_order=True, curvatures=2, gradient_draws=8)
    tracemalloc.stop()
    of_rows, of_queries = held[:2], held[2:]
    assert len(of_queries) == 8
    assert max(of_rows) / (4 * 256 * model.num_weights) < 3.5
    copies = 3 if backend.name == "numpyro" else 2
    assert max(of_queries) / (4 * 150 * model.num_weights) < copies + 256 / 150 + 0.8


def test_a_chain_that_diverged_is_left_out(small):
    model, data, _ = small
    run = sampled(model, data, draws=50)
    whole = bif.refine(run.isel(chain=[0, 2, 3]), model, **data, shrink=None)
    group(run, "sample_stats")["diverging"][1] = True
    for name in ("posterior", "log_likelihood"):
        for variable in group(run, name).data_vars:
            run[name][variable][1] = np.nan
    run["sample_stats"]["diverging"][1] = True
    found = bif.refine(run, model, **data, shrink=None)
    assert found.attrs["chains_used"] == [0, 2, 3]
    np.testing.assert_allclose(found["influence"], whole["influence"], atol=1e-4)


def test_what_does_not_fit_is_refused(small, backend):
    model, data, _ = small
    run = sampled(model, data, draws=20)
    with pytest.raises(ValueError, match="save_weights=True"):
        bif.refine(bif.sample(model, **data, draws=20, progress=False), model, **data)
    with pytest.raises(ValueError, match=r"the run has localization 2\.0, the model 3\.0"):
        bif.refine(run, model.resolve(3.0), **data)
    with pytest.raises(ValueError, match="the run has 30 train rows; got 7"):
        bif.refine(run, model, train=data["query"], query=data["query"])
    turned = tuple(a[::-1].copy() for a in data["train"])
    with pytest.raises(ValueError, match="do not give the run's log-likelihoods"):
        bif.refine(run, model, train=turned, query=data["query"])
    other = backend.mlp(random_layers([3, 3, 3]), localization=2.0)
    with pytest.raises(ValueError, match=r"inverse_temperature 0\.5, the model 1\.0"):
        bif.refine(run, other, **data)
    moved = backend.mlp(random_layers([3, 3, 3], seed=1), localization=2.0, inverse_temperature=0.5)
    with pytest.raises(ValueError, match="at the trained weights"):
        bif.refine(run, moved, **data)
    with pytest.raises(ValueError, match="curvatures"):
        bif.refine(run, model, **data, curvatures=0)
    with pytest.raises(ValueError, match="shrink"):
        bif.refine(run, model, **data, shrink="much")
    with pytest.raises(ValueError, match="at least 4 draws; got 2 of each of 1 chains"):
        bif.refine(run.isel(chain=[0], draw=[0, 1]), model, **data)


def test_any_way_of_taking_parts_is_the_same(small, monkeypatch, tmp_path):
    """Rows and points in parts, a run on disk, one query of one chain."""
    model, data, _ = small
    run = sampled(model, data, draws=20, store=tmp_path / "run")
    how = {"gradient_draws": 10, "shrink": None}
    whole = bif.refine(run, model, **data, **how)
    monkeypatch.setattr("ppl_bif.kernel.NUMBERS_AT_ONCE", 200)
    monkeypatch.setattr("ppl_bif.kernel.NUMBERS_AT_ONCE_ON_CPU", 100)
    monkeypatch.setattr("ppl_bif.refining.HELD", 100)
    # Of three queries at once.
    monkeypatch.setattr("ppl_bif.refining.memory_to_use", lambda _: 3 * 12 * model.num_weights)
    parts = bif.refine(bif.open_store(tmp_path / "run"), model, **data, **how)
    np.testing.assert_allclose(parts["influence"], whole["influence"], atol=1e-4)
    np.testing.assert_allclose(parts["mcse"], whole["mcse"], atol=1e-4)
    other = model.resolve(2.0)
    other.rows_at_once = 7
    for left in (run, run.isel(chain=[0, 1, 2]), run.isel(chain=[0])):
        found = bif.refine(left, other, **data, **how)
        assert np.isfinite(found["influence"]).all()
    one = run.isel(query=[2])
    asked = {"train": data["train"], "query": tuple(a[2:3] for a in data["query"])}
    found = bif.refine(one, model, **asked, **how)
    np.testing.assert_allclose(
        found["first_order"][0], whole["first_order"].sel(query=2), atol=1e-4
    )


def test_what_is_shrunk_is_made_small(backend):
    """With 200 rows, as much goes by gradients as leaves no more variance than there was."""
    truth = make_linear(240, 4)._replace(beta=1.0)
    data = {"train": truth.data, "query": tuple(a[:5] for a in truth.data)}
    model = backend.linear(truth.mode, localization=truth.gamma)
    expected, off = truth.influence(truth.x[:5], truth.y[:5], truth.covariance()), []
    for seed in range(4):
        run = sampled(model, data, draws=100, seed=seed)
        shrunk, plain = (bif.refine(run, model, **data, shrink=how) for how in ("auto", None))
        most = np.clip(2 * plain["share"], 0, 1)
        np.testing.assert_allclose(shrunk["share"], most, atol=1e-6)
        assert (shrunk["variance_left"] <= 1).all()
        assert (shrunk["variance_left"] >= plain["variance_left"] - 1e-6).all()
        off += [(found["influence"] - expected) / found["mcse"] for found in (shrunk, plain)]
    assert 0.7 < np.sqrt(np.square(off).mean()) < 1.3
    assert max(np.sqrt(np.square(one).mean()) for one in off) < 2


def test_the_first_order_alone_is_the_first_part(small):
    """Without the gradients that only the second part needs; shrunk, it is nearer to 0."""
    model, data, _ = small
    run = sampled(model, data, draws=20)
    whole, alone = (
        bif.refine(run, model, **data, first_order=first, shrink=None) for first in (False, True)
    )
    for name in ("influence", "first_order"):
        np.testing.assert_allclose(alone[name], whole["first_order"], atol=1e-5)
    for name in ("mcse", "first_order_mcse"):
        np.testing.assert_allclose(alone[name], whole["first_order_mcse"], atol=1e-5)
    assert "share" not in alone
    assert alone.attrs["query_variable"] == "query_obs"
    shrunk = bif.refine(run, model, **data, first_order=True, shrink="eb")
    assert shrunk.attrs["shrink"] == "eb"
    assert (abs(shrunk["influence"]) <= abs(alone["influence"]) + 1e-6).all()
    np.testing.assert_allclose(shrunk["first_order"], alone["first_order"], atol=1e-5)


def test_images_end_where_curvatures_fall_below_the_localization():
    """Of a matrix with ten large eigenvalues, which are found as well as by all images."""
    values = np.concatenate([np.geomspace(1000, 20, 10), np.geomspace(5, 1e-3, 190)])
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(200, 200)))[0]
    matrix = np.float32((rotation * values) @ rotation.T)
    found, vectors = lanczos(lambda v: matrix @ v, 200, 200, floor=10.0)
    assert len(found) == len(vectors) == 40
    np.testing.assert_allclose(found[-10:], values[:10][::-1], rtol=1e-4)
