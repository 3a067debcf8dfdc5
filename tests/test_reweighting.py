"""Reweighted expectations, against posteriors of the reweighted data that are known exactly."""

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import ppl_bif as bif
from tests.conjugate import regression


@pytest.fixture(scope="module")
def known():
    return regression()


@pytest.fixture(scope="module")
def idata(known):
    return known.draws()


def truth(known, weights):
    return known.posterior(weights)[0] - known.posterior(np.ones(len(known.y)))[0]


def test_every_row_left_out(known, idata):
    rows = len(known.y)
    weights = xr.DataArray(
        1 - np.eye(rows),
        dims=("left_out", "row"),
        coords={"left_out": [f"r{i}" for i in range(rows)]},
    )
    found = bif.reweight(idata, weights, observable="slope")
    exact = np.stack([truth(known, w) for w in weights.values])
    assert found["scenario"].values.tolist() == list(weights["left_out"].values)
    for name in ("importance", "second_order"):
        off = (found[name].values - exact) / found[f"{name}_mcse"].values
        assert np.sqrt(np.mean(off**2)) < 1.5, name
    slope = (found["shift"].values * exact).sum() / (exact**2).sum()
    assert 0.8 < slope < 1.0, "a row left out moves more than first order says"
    assert (found["pareto_k"] < 0.7).all()


def test_a_small_change_is_first_order(known, idata):
    weights = 1 + 0.02 * np.sin(np.arange(len(known.y)))
    found = bif.reweight(idata, weights, observable="slope")
    np.testing.assert_allclose(
        found["shift"][0], truth(known, weights), atol=3 * float(found["mcse"].max()), rtol=0.02
    )
    assert not found["curved"].any()


def test_a_row_on_which_draws_all_but_agree_is_left_out():
    # PSIS alone gives such weights a k of infinity, or no weights at all.
    rng = np.random.default_rng(0)
    row, phi = np.zeros((4, 500)), rng.normal(size=(4, 500))
    row[0, :100] = 1e-5
    dims = ("chain", "draw")
    groups = {
        "log_likelihood": xr.Dataset({"y": ((*dims, "row"), row[..., None])}),
        "posterior": xr.Dataset({"phi": (dims, phi)}),
    }
    found = bif.reweight(groups, np.zeros(1), train="y", observable="phi")
    assert float(found["pareto_k"][0]) == 0
    covariance = ((row - row.mean()) * (phi - phi.mean())).mean()
    np.testing.assert_allclose(found["importance"].squeeze(), -covariance, rtol=1e-4)


@settings(max_examples=20)
@given(st.lists(st.floats(0, 2), min_size=40, max_size=40))
def test_shifts_are_sums_of_influences(weights):
    run = regression().draws(draws=200)
    if np.ptp(weights) == 0:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = bif.reweight(run, weights, observable="slope")
    scores = bif.influence(run, observable="slope", shrink=None)["influence"].values
    np.testing.assert_allclose(found["shift"][0], scores @ (np.array(weights) - 1), atol=1e-9)


def test_what_first_order_cannot_say_is_warned_of(known, idata):
    dropped = {f"r{i}": 0 for i in range(0, 40, 2)}
    with pytest.warns(UserWarning, match="first order is not enough in scenarios"):
        found = bif.reweight(idata, dropped, observable="slope")
    assert found["curved"].any()


def test_groups_are_weighted_whole(known, idata):
    half = {f"r{i}": 0.9 for i in range(0, 40, 2)}
    found = bif.reweight(idata, {0: 0.9}, observable="slope", groups="half")
    rows = bif.reweight(idata, half, observable="slope")
    xr.testing.assert_allclose(found.drop_attrs(), rows.drop_attrs())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"nobody": 0}, "there is no row 'nobody'"),
        (np.ones(3), "weights must be of 40 rows"),
        (-np.ones(40), "at least 0"),
        (np.ones(40), "nothing changes"),
    ],
)
def test_bad_weights_are_refused(idata, weights, message):
    with pytest.raises(ValueError, match=message):
        bif.reweight(idata, weights, observable="slope")


def test_groups_of_rows_have_the_sum_of_their_influences(idata):
    each = bif.influence(idata, observable="slope", shrink=None)["influence"].values
    labels = np.arange(40) % 3
    for groups, of in (("half", np.arange(40) % 2), (labels, labels)):
        found = bif.influence(idata, observable="slope", groups=groups, shrink=None)
        summed = np.stack([each[:, of == at].sum(axis=1) for at in np.unique(of)], axis=1)
        np.testing.assert_allclose(found["influence"], summed, atol=1e-10)
        assert found["train"].values.tolist() == np.unique(of).tolist()


def test_observables_are_variables_lists_and_functions(idata):
    alone = bif.influence(idata, observable="slope", shrink=None)["influence"].values
    several = bif.influence(idata, observable=["slope"], shrink=None)
    assert several["query"].values.tolist() == ["slope[0]", "slope[1]"]
    np.testing.assert_allclose(several["influence"], alone)
    made = bif.influence(idata, observable=lambda p: p["slope"].isel(at=1) * 2, shrink=None)
    np.testing.assert_allclose(made["influence"], 2 * alone[1:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": "nowhere"}, "neither a coordinate of 'row'"),
        ({"groups": np.zeros(3)}, "one entry for each of 40 rows"),
        ({"observable": "nothing"}, "'nothing' is not there"),
        ({"observable": lambda p: 3}, "gives an xarray.DataArray"),
    ],
)
def test_what_is_not_there_is_named(idata, settings, message):
    with pytest.raises(ValueError, match=message):
        bif.influence(idata, **{"observable": "slope", **settings})


@pytest.mark.numpyro
def test_foretold_shifts_are_those_of_refits():
    refits = pytest.importorskip("benchmarks.refits")
    some = {"groups": ["Choate", "St. Paul's"], "draws": 2500, "weights": (0.5,)}
    case = refits.schools()._replace(**some)
    (line,) = refits.judged("eight schools", case)
    for name in ("second_order", "importance"):
        slope, error = line[name]
        assert abs(slope - 1) < 3 * error, name
        assert error < 0.15, "tight enough to tell"


def test_radon_is_whole():
    from ppl_bif_models import radon

    homes = radon.load()
    assert (len(homes.log_radon), len(homes.names)) == (919, 85)
    assert homes.first_floor.sum() == 153
    assert homes.county.max() == 84
