"""Scores from runs: ours and foreign ones, now and lazily, with what was left out."""

import dask
import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from ppl_bif import scores as scores_module
from ppl_bif.covariance import block_covariance
from ppl_bif.schema import inference_data
from tests.series import factors, run_of

COORDS = {"train": [f"t{i}" for i in range(7)], "query": np.arange(5) * 10}


def small(draws=60, **changes):
    rng = np.random.default_rng(0)
    train, query, _ = factors(rng, draws, train=7, query=5)
    return run_of(train, query, **{"coords": COORDS, **changes})


def losses(**changes):
    """A run whose losses are positive, as a classifier's are."""
    train, query, _ = factors(np.random.default_rng(0), 60, train=7, query=5)
    return run_of(-np.exp(train), -np.exp(query), **{"coords": COORDS, **changes})


def of_likelihood(variables, **groups):
    return inference_data({"log_likelihood": xr.Dataset(variables), **groups}, {})


def test_values_errors_and_names():
    scores = bif.influence(small(attrs={"inverse_temperature": 0.5}), shrink=None)
    assert scores["influence"].dims == ("query", "train")
    assert scores["train"].values.tolist() == COORDS["train"]
    assert scores["query"].values.tolist() == COORDS["query"].tolist()
    assert scores.attrs["kind"] == "covariance"
    assert scores.attrs["chains_used"] == [0, 1, 2, 3]
    assert scores.attrs["chains_excluded"] == []
    assert scores.attrs["blocks"] % 4 == 0
    np.testing.assert_array_equal(
        scores["resolved"], np.abs(scores["influence"]) > 2 * scores["mcse"]
    )
    whole = bif.influence(small(), shrink=None)
    np.testing.assert_allclose(2 * scores["influence"], whole["influence"])
    np.testing.assert_allclose(2 * scores["mcse"], whole["mcse"])


def test_correlations_do_not_know_the_temperature():
    hot = bif.influence(small(attrs={"inverse_temperature": 0.1}), kind="correlation")
    xr.testing.assert_allclose(hot, bif.influence(small(), kind="correlation"))
    assert (np.abs(hot["influence"]) <= 1).all()
    assert not hot["undefined"].any()


def test_scores_approach_the_truth():
    train, query, truth = factors(np.random.default_rng(0), 4000)
    scores = bif.influence(run_of(train, query), shrink=None)
    z = (scores["influence"] - truth) / scores["mcse"]
    assert 0.92 < float((np.abs(z) < 1.96).mean()) < 0.98


@pytest.mark.parametrize("kind", ["covariance", "correlation"])
@pytest.mark.parametrize("block_pairs", [1, 2, 6, 20, 34])
def test_lazy_scores_equal_eager_ones(kind, block_pairs, monkeypatch):
    run = small()
    eager = bif.influence(run, kind=kind, shrink=None)
    formed = []
    name = f"block_{kind}"
    real = getattr(scores_module, name)

    def spy(train, query, **settings):
        formed.append((query.shape[2], train.shape[2]))
        return real(train, query, **settings)

    monkeypatch.setattr(scores_module, name, spy)
    lazy = bif.influence(run, kind=kind, shrink=None, block_pairs=block_pairs)
    assert lazy["influence"].chunks is not None
    assert not formed
    one = lazy.isel(query=3, train=4).compute()
    assert len(formed) <= 2
    np.testing.assert_allclose(one["influence"], eager["influence"][3, 4])
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_allclose(lazy.compute(), eager)
    assert max(q * t for q, t in formed) <= block_pairs
    assert sum(q * t for q, t in formed) >= 35


def test_the_matrix_goes_to_disk_and_each_pair_is_formed_once(tmp_path, monkeypatch):
    run = small()
    formed = []

    def spy(train, query, **settings):
        formed.append((query.shape[2], train.shape[2]))
        return block_covariance(train, query, **settings)

    monkeypatch.setattr(scores_module, "block_covariance", spy)
    lazy = bif.influence(run, shrink=None, block_pairs=20)
    lazy.to_zarr(tmp_path / "scores.zarr", consolidated=False, zarr_format=2)
    assert sorted(formed) == [(5, 3), (5, 4)]
    kept = xr.open_zarr(tmp_path / "scores.zarr", consolidated=False)
    xr.testing.assert_allclose(kept.compute(), bif.influence(run, shrink=None))
    assert kept.attrs == lazy.attrs


@pytest.mark.parametrize("block_pairs", [1, 20, 34])
def test_lazy_shrunk_scores_equal_eager_ones(block_pairs):
    run = losses()
    lazy = bif.influence(run, shrink="eb", block_pairs=block_pairs)
    assert lazy["influence"].chunks is not None
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_allclose(lazy.compute(), bif.influence(run, shrink="eb"))


def test_the_plain_estimate_is_always_kept():
    run = losses(attrs={"inverse_temperature": 0.5})
    plain, scores = (bif.influence(run, shrink=shrink) for shrink in (None, "eb"))
    assert (plain.attrs["shrink"], scores.attrs["shrink"]) == ("none", "eb")
    assert "covariance" not in plain
    np.testing.assert_allclose(scores["covariance"], plain["influence"])
    np.testing.assert_allclose(scores["covariance_mcse"], plain["mcse"])
    assert (scores["influence"] != plain["influence"]).all()
    np.testing.assert_array_equal(scores["resolved"], scores["false_sign"] < 0.025)


def test_shrinking_is_the_default_where_there_are_many_rows():
    rng = np.random.default_rng(0)
    for rows, shrink in ((199, "none"), (200, "eb")):
        run = run_of(rng.normal(size=(2, 50, rows)), rng.normal(size=(2, 50, 3)))
        assert bif.influence(run).attrs["shrink"] == shrink
        assert bif.influence(run, kind="correlation").attrs["shrink"] == "none"


def test_what_is_asked_for_must_exist():
    run = losses()
    for name, value in (("shrink", "lasso"), ("kind", "distance")):
        with pytest.raises(ValueError, match=rf"{name} must be one of .*; got '{value}'"):
            bif.influence(run, **{name: value})
    with pytest.raises(ValueError, match="a correlation is not shrunk"):
        bif.influence(run, kind="correlation", shrink="eb")


def test_a_run_that_did_not_sample_its_posterior_is_not_scored():
    run = losses(attrs={"refused": ["its chains still wander"]})
    for ask in (bif.influence, bif.top):
        with pytest.raises(bif.BIFError, match=r"did not sample its posterior.*still wander"):
            ask(run)


def test_top_of_lazy_scores():
    run = small()
    with dask.config.set(scheduler="synchronous"):
        lazy = bif.top(bif.influence(run, block_pairs=6), k=3)
    xr.testing.assert_allclose(lazy, bif.top(run, k=3))


def test_a_foreign_run_of_one_variable():
    values = np.random.default_rng(0).normal(size=(2, 50, 4))
    run = of_likelihood({"y": (("chain", "draw", "y_dim_0"), values)})
    scores = bif.influence(run, shrink=None)
    assert scores.sizes == {"query": 4, "train": 4}
    centred = values - values.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
        np.diag(scores["influence"]), (centred**2).mean(axis=(0, 1)), rtol=0.1
    )


def test_a_foreign_run_with_dims_in_another_order():
    run = small()
    likelihood = run["log_likelihood"]
    turned = {
        name: (array.dims[::-1], array.values.T)
        for name, array in (("train_obs", likelihood["train_obs"]),)
    }
    other = of_likelihood({**turned, "query_obs": likelihood["query_obs"].variable})
    np.testing.assert_allclose(bif.influence(other)["influence"], bif.influence(run)["influence"])


def test_a_foreign_run_of_two_dimensional_rows():
    values = np.random.default_rng(0).normal(size=(2, 50, 3, 2))
    scores = bif.influence(of_likelihood({"y": (("chain", "draw", "site", "year"), values)}))
    assert scores["train"].values.tolist() == ["0,0", "0,1", "1,0", "1,1", "2,0", "2,1"]
    flat = of_likelihood({"y": (("chain", "draw", "row"), values.reshape(2, 50, 6))})
    np.testing.assert_allclose(scores["influence"], bif.influence(flat)["influence"])


def test_tokens_are_summed():
    rng = np.random.default_rng(0)
    train, query = rng.normal(size=(2, 50, 4, 3)), rng.normal(size=(2, 50, 2, 5))
    first = ("chain", "draw")
    tokens = of_likelihood(
        {
            "train_obs": ((*first, "train", "train_token"), train),
            "query_obs": ((*first, "query", "query_token"), query),
        }
    )
    xr.testing.assert_allclose(
        bif.influence(tokens), bif.influence(run_of(train.sum(-1), query.sum(-1)))
    )


def test_an_observable_of_the_posterior():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 200))
    train = weight[..., None] * np.array([1.0, -2.0]) + 0.1 * rng.normal(size=(4, 200, 2))
    run = run_of(train, train, posterior={"w": weight})
    scores = bif.influence(run, observable="w")
    assert scores["query"].values.tolist() == ["w"]
    np.testing.assert_allclose(scores["influence"], [[1.0, -2.0]], atol=0.2)


def stats(chains=4, draws=60, bad=()):
    diverging = np.zeros((chains, draws), bool)
    for chain in bad:
        diverging[chain, draws // 2 :] = True
    return {"diverging": diverging, "distance": np.ones((chains, draws))}


@pytest.mark.parametrize("bad", [(1,), (0, 3)])
def test_diverged_chains_are_left_out_and_named(bad):
    good = [c for c in range(4) if c not in bad]
    train, query, _ = factors(np.random.default_rng(0), 60)
    for chain in bad:
        train[chain, 30:] = query[chain, 30:] = np.nan
    scores = bif.influence(run_of(train, query, stats=stats(bad=bad)))
    assert scores.attrs["chains_excluded"] == list(bad)
    assert scores.attrs["chains_used"] == good
    clean = bif.influence(run_of(train[good], query[good], stats=stats(len(good))))
    np.testing.assert_array_equal(scores["influence"], clean["influence"])
    assert bif.top(scores, k=2).attrs["chains_excluded"] == list(bad)


def test_no_chain_left():
    with pytest.raises(
        bif.BIFError, match=r"every chain diverged \(\[0, 1, 2, 3\]\): sample again"
    ):
        bif.influence(small(stats=stats(bad=range(4))))


def test_transitions_of_nuts_that_diverge_are_kept():
    marked = {"diverging": stats(bad=range(4))["diverging"]}
    assert bif.influence(small(stats=marked)).attrs["chains_used"] == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_value_that_is_not_finite_and_not_marked(value):
    train, query, _ = factors(np.random.default_rng(0), 60)
    train[2, 5, 1] = value
    with pytest.raises(bif.BIFError, match=r"train_obs holds NaN or infinity.*drop these chains"):
        bif.influence(run_of(train, query))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_that_does_not_move(dtype):
    train, query, _ = factors(np.random.default_rng(0), 60, train=7, query=5)
    train[..., 2] = -0.1
    run = run_of(train.astype(dtype), query.astype(dtype))
    scores = bif.influence(run, kind="correlation")
    assert scores["undefined"].sel(train=2).all()
    assert int(scores["undefined"].sum()) == 5
    for kind in ("covariance", "correlation"):
        still = bif.influence(run, kind=kind).sel(train=2)
        assert (still["influence"] == 0).all()
        assert (still["mcse"] == 0).all()
        assert not still["resolved"].any()


def test_a_row_correlates_with_itself_and_that_is_defined():
    train = np.random.default_rng(0).normal(size=(4, 60, 3))
    scores = bif.influence(run_of(train, train), kind="correlation")
    np.testing.assert_allclose(np.diag(scores["influence"]), 1)
    assert not scores["undefined"].any()
