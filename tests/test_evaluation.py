"""Retraining and linear datamodeling scores, against closed forms."""

import os

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

import ppl_bif as bif
from ppl_bif.evaluation import ceiling, compare, lds, leave_out, random_subsets, retrain
from ppl_bif.evaluation.ranks import spearman

ROWS, QUERIES, RIDGE = 60, 8, 5.0
RNG = np.random.default_rng(0)
X, XQ = RNG.normal(size=(ROWS, 4)), RNG.normal(size=(QUERIES, 4))
W = np.array([1.0, -2.0, 0.5, 0.0])
Y, YQ = X @ W + RNG.normal(size=ROWS), XQ @ W + RNG.normal(size=QUERIES)


def fit(rows):
    x = X[rows]
    return np.linalg.solve(x.T @ x + RIDGE * np.eye(4), x.T @ Y[rows])


def train(rows, seed):
    """Ridge regression, which retraining does exactly, and noise of the seed."""
    noise = 0.02 * np.random.default_rng([seed, *rows]).normal(size=QUERIES)
    loss = (YQ - XQ @ fit(rows)) ** 2 / 2 + noise
    return {"loss": loss, "margin": -2 * loss}


def influence():
    """Influence functions at the weights of all rows: -dloss_q / dweight_i, ``(query, train)``."""
    w = fit(np.arange(ROWS))
    hessian = X.T @ X + RIDGE * np.eye(4)
    gradients, explained = (X @ w - Y)[:, None] * X, (XQ @ w - YQ)[:, None] * XQ
    return explained @ np.linalg.solve(hessian, gradients.T)


@pytest.fixture(scope="module")
def truth():
    return retrain(train, random_subsets(ROWS, 80), seeds=(0, 1))


def test_designs():
    masks = random_subsets(ROWS, 5, fraction=0.25)
    assert masks.sum(axis=1).tolist() == [15] * 5
    np.testing.assert_array_equal(random_subsets(ROWS, 3, fraction=0.25), masks[:3])
    assert leave_out(4, [1, [0, 3], []]).sum(axis=1).tolist() == [3, 2, 4]


@pytest.mark.parametrize(
    ("design", "why"),
    [
        (lambda: random_subsets(20, 2, fraction=0.99), r"fraction of 0\.99 holds 20 of 20"),
        (lambda: random_subsets(20, 2, fraction=0.01), r"fraction of 0\.01 holds 0 of 20"),
        (lambda: leave_out(3, [5]), r"groups must be numbers of rows, 0 to 2; got \[5\]"),
        (lambda: leave_out(3, [[0, -1]]), r"groups must be numbers of rows, 0 to 2; got \[-1\]"),
        (lambda: leave_out(3, [[True]]), r"groups must be numbers of rows; got bool"),
    ],
)
def test_designs_that_tell_nothing_apart_are_refused(design, why):
    with pytest.raises(ValueError, match=why):
        design()


def test_leaving_out_is_what_the_closed_form_says():
    found = retrain(train, leave_out(ROWS, range(ROWS)), seeds=(3,))["loss"]
    rest = np.delete(np.arange(ROWS), 7)
    np.testing.assert_allclose(found.sel(subset=7, seed=3), train(rest, 3)["loss"], rtol=1e-5)


def test_influence_functions_foretell_ridge_regression(truth):
    found = lds(influence(), truth)
    assert found["mean"] > 0.6
    assert found["low"] < found["mean"] < found["high"]
    assert 0.9 < ceiling(truth) <= 1
    assert found["mean"] < ceiling(truth)
    assert float(lds(-influence(), truth)["mean"]) == pytest.approx(-float(found["mean"]))
    np.testing.assert_allclose(lds(influence(), truth, output="margin")["mean"], found["mean"])


def test_each_query_is_the_correlation_of_scipy(truth):
    sums = truth["mask"].values @ influence().T
    values = -truth["loss"].mean("seed")
    expected = [spearmanr(sums[:, q], values[:, q]).statistic for q in range(QUERIES)]
    np.testing.assert_allclose(lds(influence(), truth)["lds"], expected)


def test_differences_are_paired(truth):
    noisy = influence() + 0.05 * np.random.default_rng(1).normal(size=(QUERIES, ROWS))
    random = np.random.default_rng(2).normal(size=(QUERIES, ROWS))
    methods = {"exact": influence(), "noisy": noisy, "random": random}
    found = compare(methods, truth, resamples=200)
    for name, scores in methods.items():
        own = lds(scores, truth, resamples=200)
        assert float(found["lds"].sel(attributor=name)) == float(own["mean"])
        assert float(found["low"].sel(attributor=name)) == float(own["low"])
    one = found.sel(attributor="exact", other="noisy")
    assert one["difference_low"] < one["difference"] < one["difference_high"]
    # Resampled together, a difference is known better than the two apart.
    apart = found["high"] - found["low"]
    both = np.hypot(float(apart.sel(attributor="exact")), float(apart.sel(attributor="noisy")))
    assert float(one["difference_high"] - one["difference_low"]) < both
    assert float(found["difference"].sel(attributor="random", other="exact")) < -0.4
    assert abs(float(found["lds"].sel(attributor="random"))) < 0.15


def test_a_comparison_without_intervals_is_drawn_as_points(truth):
    found = compare({"exact": influence(), "backwards": -influence()}, truth, resamples=0)
    assert np.isnan(found["low"]).all()
    pc = bif.plot_lds(found, reference="exact", ceiling=0.9, backend="matplotlib")
    ax = pc.viz["plot"].item()
    assert np.isfinite(ax.get_xlim()).all()
    difference = float(found["difference"].sel(attributor="backwards", other="exact"))
    said = {text.get_text().strip(): text.get_position()[0] for text in ax.texts}
    assert set(said) == {f"{difference:+.3f}", "reference", "ceiling"}
    assert said["reference"] == float(found["lds"].sel(attributor="exact"))


def test_the_interval_of_the_mean_covers_it():
    """Of many truths of one law, 95% of the intervals hold the mean that a long one has."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, 30))

    def drawn(subsets, noise, seed):
        masks = random_subsets(30, subsets, seed=seed)
        loss = -(masks @ scores.T) + noise * rng.normal(size=(subsets, 20))
        return xr.Dataset(
            {
                "mask": (("subset", "train"), masks),
                "loss": (("subset", "seed", "query"), loss[:, None]),
            }
        )

    expected = float(lds(scores, drawn(20_000, 3.0, 10**6), resamples=1)["mean"])
    inside = 0
    for seed in range(100):
        found = lds(scores, drawn(60, 3.0, seed), resamples=100, seed=seed)
        inside += bool(found["low"] <= expected <= found["high"])
    assert 88 <= inside <= 100


@given(st.integers(0, 1000))
def test_rows_are_found_by_their_ids_and_ranks_alone_count(seed):
    rng = np.random.default_rng(seed)
    masks, scores = random_subsets(6, 9, seed=seed), rng.normal(size=(2, 6))
    loss = rng.normal(size=(9, 1, 2)).astype(np.float32)
    ids = {"train": list("abcdef"), "query": ["p", "q"]}
    truth = xr.Dataset(
        {"mask": (("subset", "train"), masks), "loss": (("subset", "seed", "query"), loss)},
        coords=ids,
    )
    table = xr.DataArray(scores, dims=("query", "train"), coords=ids)
    found = lds(table, truth, resamples=5)["lds"]
    shuffled = table[::-1, rng.permutation(6)]
    np.testing.assert_array_equal(lds(shuffled, truth, resamples=5)["lds"], found)
    stretched = truth.assign(loss=truth["loss"] ** 3)
    np.testing.assert_allclose(lds(table, stretched, resamples=5)["lds"], found)
    with pytest.raises(ValueError, match=r"scores lack train rows \['c'\]"):
        lds(table.drop_sel(train="c"), truth)


def test_what_is_stopped_goes_on(tmp_path):
    masks, made = random_subsets(ROWS, 6), []

    def stopping(rows, seed):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(seed)
        return train(rows, seed)

    with pytest.raises(KeyboardInterrupt):
        retrain(stopping, masks, store=tmp_path / "a.zarr")
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        retrain(stopping, masks, store=tmp_path / "a.zarr")
    found = retrain(train, masks, store=tmp_path / "a.zarr")
    xr.testing.assert_identical(found, retrain(train, masks))
    made[:] = [0] * 5
    xr.testing.assert_identical(retrain(stopping, masks, store=tmp_path / "a.zarr"), found)
    with pytest.raises(bif.StoreError, match="holds other retrainings"):
        retrain(train, masks[:4], store=tmp_path / "a.zarr")


def test_processes_give_the_same():
    masks = random_subsets(ROWS, 4)

    def local(rows, seed):
        return {"loss": np.array([rows.sum(), seed], float)}

    xr.testing.assert_identical(retrain(local, masks, workers=2), retrain(local, masks))

    class Held:
        def __reduce__(self):
            raise TypeError("cannot pickle an open file")

    held = Held()
    with pytest.raises(TypeError, match=r"cannot be sent .*open file.*workers=1"):
        retrain(lambda rows, seed: [seed, hash(held)], masks, workers=2)


def test_a_process_that_ends_says_what_to_do():
    def ending(rows, seed):
        os._exit(1)

    with pytest.raises(bif.BIFError, match=r'under `if __name__ == "__main__":`'):
        retrain(ending, random_subsets(4, 2), workers=2)


def varying(*found):
    """Train to each of these outputs in turn."""
    turns = iter(found)
    return lambda rows, seed: next(turns)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"loss": [9.0], "margin": [9.0]}, "1 x loss, 1 x margin"),
        ({"loss": [9.0] * 3}, "3 x loss"),
        ({"loss": [9.0] * 3, "margin": [9.0] * 3, "more": [9.0] * 3}, "3 x loss, .*3 x more"),
    ],
)
def test_a_retraining_that_gives_others_than_the_first_is_refused(second, told, tmp_path):
    first, masks = {"loss": [1.0, 2.0, 3.0], "margin": [0.0] * 3}, random_subsets(4, 2)
    message = rf"subset 1 gave {told}, the first 3 x loss, 3 x margin"
    for store in (None, tmp_path / "a.zarr"):
        with pytest.raises(ValueError, match=message):
            retrain(varying(first, second), masks, seeds=[0], store=store)
    message = rf"subset 1 gave {told}, those in the store 3 x loss"
    with pytest.raises(bif.StoreError, match=message):
        retrain(varying(second), masks, seeds=[0], store=tmp_path / "a.zarr")
    found = retrain(varying(first), masks, seeds=[0], store=tmp_path / "a.zarr")
    assert found.sizes["query"] == 3


def test_outputs_may_not_be_called_as_what_is_kept_beside_them():
    with pytest.raises(ValueError, match=r"outputs called other than \['done', 'mask'\]"):
        retrain(lambda rows, seed: {"loss": [1.0], "mask": [1.0]}, random_subsets(4, 2))


def test_losses_that_are_not_finite_are_kept_and_told():
    def failing(rows, seed):
        return np.array([1.0, np.nan if 0 in rows else len(rows)])

    found = retrain(failing, random_subsets(5, 4), seeds=(0,))
    assert found.attrs["not_finite"] == int(found["mask"].sel(train=0).sum())
    with pytest.raises(ValueError, match=r"loss of queries \[1\] is not finite"):
        lds(np.ones((2, 5)), found)


@pytest.mark.parametrize(
    ("masks", "given_", "why"),
    [
        (np.ones((2, 3)), {}, r"masks must be bool"),
        (np.zeros((1, 3), bool), {}, r"subsets \[0\] hold no row"),
        (np.ones((1, 3), bool), {"seeds": (0, 0)}, r"seeds must be some different numbers"),
        (np.ones((1, 3), bool), {"seeds": ()}, r"seeds must be some different numbers"),
        (np.ones((1, 3), bool), {"query_ids": ["a"]}, r"query_ids must name each of the 2 rows"),
    ],
)
def test_what_does_not_fit(masks, given_, why):
    with pytest.raises(ValueError, match=why):
        retrain(lambda rows, seed: [0.0, 1.0], masks, **given_)


def test_outputs_are_one_number_a_query():
    with pytest.raises(ValueError, match="one number for each query"):
        retrain(lambda rows, seed: {"loss": [1.0], "margin": [1.0, 2.0]}, np.ones((1, 3), bool))


def test_one_seed_has_no_ceiling(truth):
    with pytest.raises(ValueError, match="two of them at least"):
        ceiling(truth.isel(seed=[0]))
    with pytest.raises(ValueError, match=r"no 'accuracy'; it has \['loss', 'margin'\]"):
        ceiling(truth, output="accuracy")


def noisy(subsets, noise, seeds):
    """A truth of one signal, and of each query's own noise of seeds."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(subsets, 1, len(noise)))
    loss = signal + np.asarray(noise) * rng.normal(size=(subsets, seeds, len(noise)))
    return signal[:, 0], xr.Dataset({"loss": (("subset", "seed", "query"), loss)})


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
def test_the_ceiling_is_what_the_signal_itself_reaches(seeds):
    signal, truth = noisy(5000, [1.5] * 4, seeds)
    reached = spearman(signal, truth["loss"].mean("seed").values).mean()
    assert ceiling(truth) == pytest.approx(reached, abs=0.01)


def test_the_ceiling_is_above_what_is_reached_where_queries_differ():
    signal, truth = noisy(5000, [0.0, 0.0, 1e6, 1e6], 2)
    reached = spearman(signal, truth["loss"].mean("seed").values).mean()
    assert reached == pytest.approx(0.5, abs=0.02)
    assert ceiling(truth) == pytest.approx(0.816, abs=0.01)


def test_spearman_of_what_is_constant():
    assert spearman(np.ones((5, 1)), np.arange(5.0)[:, None]).tolist() == [0.0]
