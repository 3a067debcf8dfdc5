"""Rows of several dims, and of several likelihood variables, against the same rows side by side."""

import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from ppl_bif.schema import inference_data

CHAINS, DRAWS = 4, 400
SCHOOLS, YEARS = ["Choate", "Andover", "Exeter"], [1999, 2000]
SIZE = (CHAINS, DRAWS, len(SCHOOLS), len(YEARS))


@pytest.fixture(scope="module")
def theta():
    return np.random.default_rng(0).normal(size=(CHAINS, DRAWS, 2))


@pytest.fixture(scope="module")
def values(theta):
    """Log-likelihoods of a table of schools and years, and of three schools' heads."""
    rng = np.random.default_rng(1)
    table = theta @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(CHAINS, DRAWS, 6))
    return table.reshape(SIZE), theta @ rng.normal(size=(2, 3))


def run(variables, posterior, **constant):
    groups = {
        "log_likelihood": xr.Dataset(variables, {"school": SCHOOLS, "year": YEARS}),
        "posterior": xr.Dataset({"theta": (("chain", "draw", "at"), posterior)}),
        "constant_data": xr.Dataset(constant),
    }
    return inference_data(groups, {})


@pytest.fixture(scope="module")
def table(values, theta):
    return run({"y": (("chain", "draw", "school", "year"), values[0])}, theta)


@pytest.fixture(scope="module")
def both(values, theta):
    return run(
        {
            "y": (("chain", "draw", "school", "year"), values[0]),
            "head": (("chain", "draw", "school"), values[1]),
        },
        theta,
        region=("school", ["north", "south", "south"]),
        grade=(("year", "school"), np.arange(6).reshape(2, 3) % 2),
    )


def plain(rows, theta):
    """Influence of rows ``(chain, draw, row)`` that lie side by side."""
    flat = run({"flat": (("chain", "draw", "row"), rows)}, theta)
    return bif.influence(flat, observable="theta", shrink=None)


def test_rows_of_two_dims_have_readable_ids(table, values, theta):
    found = bif.influence(table, observable="theta", shrink=None)
    assert found["train"].values.tolist() == [f"{s},{y}" for s in SCHOOLS for y in YEARS]
    expected = plain(values[0].reshape(CHAINS, DRAWS, 6), theta)
    for name in ("influence", "mcse"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10)


def test_dims_without_coordinates_count(table, values, theta):
    bare = run({"y": (("chain", "draw", "y_dim_0", "y_dim_1"), values[0])}, theta)
    assert bif.influence(bare, shrink=None)["train"].values.tolist()[:3] == ["0,0", "0,1", "1,0"]


def test_one_of_the_dims_groups_rows(table, values, theta):
    found = bif.influence(table, observable="theta", groups="school", shrink=None)
    order = np.argsort(SCHOOLS)
    assert found["train"].values.tolist() == sorted(SCHOOLS)
    expected = plain(values[0].sum(axis=3)[:, :, order], theta)
    np.testing.assert_allclose(found["influence"], expected["influence"], rtol=1e-10)
    some = bif.reweight(table, {"Choate": 0.9}, observable="theta", groups="school")
    each = {f"Choate,{year}": 0.9 for year in YEARS}
    rows = bif.reweight(table, each, observable="theta")
    np.testing.assert_allclose(some["importance"], rows["importance"], rtol=1e-10)


def side_by_side(values):
    return np.concatenate([values[0].reshape(CHAINS, DRAWS, 6), values[1]], axis=2)


def test_several_variables_follow_one_another(both, values, theta):
    found = bif.influence(both, train=["y", "head"], observable="theta", shrink=None)
    names = [f"y[{s},{y}]" for s in SCHOOLS for y in YEARS] + [f"head[{s}]" for s in SCHOOLS]
    assert found["train"].values.tolist() == names
    expected = plain(side_by_side(values), theta)
    for name in ("influence", "mcse"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10)
    queries = bif.influence(both, train="head", query=["head", "y"], shrink=None)
    assert queries.sizes == {"query": 9, "train": 3}


@pytest.mark.parametrize(
    ("groups", "of_table", "of_heads"),
    [
        ("variable", ["y"] * 6, ["head"] * 3),
        ("school", np.repeat(SCHOOLS, 2), SCHOOLS),
        ("region", np.repeat(["north", "south", "south"], 2), ["north", "south", "south"]),
    ],
)
def test_groups_of_several_variables(both, values, theta, groups, of_table, of_heads):
    found = bif.influence(both, train=["y", "head"], observable="theta", groups=groups, shrink=None)
    labels, rows = np.r_[of_table, of_heads], side_by_side(values)
    summed = np.stack([rows[..., labels == name].sum(axis=2) for name in np.unique(labels)], axis=2)
    assert found["train"].values.tolist() == np.unique(labels).tolist()
    np.testing.assert_allclose(found["influence"], plain(summed, theta)["influence"], rtol=1e-9)


def test_what_is_known_of_rows_may_have_its_dims_in_another_order(both, values, theta):
    found = bif.influence(both, train="y", observable="theta", groups="grade", shrink=None)
    rows, labels = values[0].reshape(CHAINS, DRAWS, 6), (np.arange(6).reshape(2, 3) % 2).T.ravel()
    summed = np.stack([rows[..., labels == at].sum(axis=2) for at in (0, 1)], axis=2)
    np.testing.assert_allclose(found["influence"], plain(summed, theta)["influence"], rtol=1e-9)


def test_reweight_and_jackknife_take_several(both, values, theta):
    settings = {"train": ["y", "head"], "observable": "theta"}
    found = bif.reweight(both, {"head[Exeter]": 0.8, "y[Choate,2000]": 1.1}, **settings)
    flat = run({"flat": (("chain", "draw", "row"), side_by_side(values))}, theta)
    expected = bif.reweight(flat, {8: 0.8, 1: 1.1}, observable="theta")
    np.testing.assert_allclose(found["importance"], expected["importance"], rtol=1e-9)
    one, other = bif.jackknife(both, **settings), bif.jackknife(flat, observable="theta")
    np.testing.assert_allclose(one["sd"], other["sd"], rtol=1e-9)


def test_log_likelihoods_may_lie_in_the_posterior(values, theta):
    posterior = xr.Dataset(
        {
            "theta": (("chain", "draw", "at"), theta),
            "log_lik": (("chain", "draw", "log_lik_dim_0"), values[1]),
        }
    )
    idata = inference_data({"posterior": posterior}, {})
    with pytest.raises(ValueError, match=r"those are \['log_lik'\] of the posterior, name them by"):
        bif.influence(idata, observable="theta")
    found = bif.influence(idata, train="log_lik", observable="theta", shrink=None)
    np.testing.assert_allclose(found["influence"], plain(values[1], theta)["influence"])
    assert bif.jackknife(idata, train="log_lik")["query"].values.tolist() == [
        "theta[0]",
        "theta[1]",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"'train_obs' is not there; there are \['y', 'head'\]: name them by train="),
        ({"train": ["y", "tail"]}, r"train variable 'tail' is not there"),
        ({"train": ["y", "y"]}, r"named once each"),
        ({"train": []}, r"at least one; got \[\]"),
        ({"train": "head", "groups": "year"}, r"groups='year' is neither a coordinate of 'school'"),
        ({"train": "head", "groups": "grade"}, r"one entry for each of 3 rows; got shape \(2, 3\)"),
    ],
)
def test_what_does_not_fit_is_told(both, settings, message):
    with pytest.raises(ValueError, match=message):
        bif.influence(both, observable="theta", **settings)


def test_a_name_that_is_mistaken_is_not_taken_for_the_only_one(table):
    with pytest.raises(ValueError, match=r"train variable 'z' is not there; there are \['y'\]"):
        bif.influence(table, train="z", observable="theta")


@pytest.mark.parametrize(
    ("posterior", "said"),
    [
        (xr.Dataset({"theta": (("chain", "draw"), np.zeros((CHAINS, 100)))}), "draws 400"),
        (xr.Dataset({"theta": (("chain", "draw"), np.zeros((2, DRAWS)))}), "chains 4"),
        (
            xr.Dataset(
                {"theta": (("chain", "draw"), np.zeros((CHAINS, DRAWS)))},
                {"draw": np.arange(DRAWS) + 500},
            ),
            r"draws 400 \(500 ... 899\)",
        ),
    ],
)
def test_other_draws_of_the_posterior_are_refused(values, posterior, said):
    likelihood = xr.Dataset(
        {"y": (("chain", "draw", "school"), values[1])}, {"draw": np.arange(DRAWS)}
    )
    idata = inference_data({"log_likelihood": likelihood, "posterior": posterior}, {})
    with pytest.raises(ValueError, match=f"'theta' and 'y' are of other draws: .*{said}"):
        bif.influence(idata, observable="theta")


def test_an_id_of_several_rows_is_not_one_row(values, theta):
    likelihood = {"y": (("chain", "draw", "county"), values[1])}
    posterior = xr.Dataset({"theta": (("chain", "draw", "at"), theta)})
    rows = xr.Dataset(likelihood, {"county": ["a", "b", "a"]})
    same = inference_data({"log_likelihood": rows, "posterior": posterior}, {})
    with pytest.raises(ValueError, match="several rows have the same id: weight them together"):
        bif.reweight(same, {"a": 0}, observable="theta")
    found = bif.reweight(same, {"a": 0.9}, observable="theta", groups="county")
    assert found.sizes["query"] == 2
