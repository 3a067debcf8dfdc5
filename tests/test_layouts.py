"""Files as PyMC and CmdStan leave them: read by ArviZ, scored as the same rows side by side."""

import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from ppl_bif.schema import arviz, group, inference_data
from tests.conjugate import regression

SCHOOLS = [f"school {i}" for i in range(8)]
YEARS = [1999, 2000, 2001, 2002, 2003]
COLUMNS = (
    "accept_stat__",
    "stepsize__",
    "treedepth__",
    "n_leapfrog__",
    "divergent__",
    "energy__",
)


@pytest.fixture(scope="module")
def known():
    return regression()


@pytest.fixture(scope="module")
def flat(known):
    return known.draws(draws=250)


@pytest.fixture(scope="module")
def expected(flat):
    return bif.influence(flat, observable="slope", shrink=None)


def close(found, expected):
    for name in ("influence", "mcse"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-12)


def like_pymc(known, flat):
    """Lay 32 rows out as PyMC 5 lays a table of eight schools and four years, the rest beside it.

    Dims of the model have its coordinates, another is counted; observed data have those of the
    likelihood, and sample statistics are those of PyMC's NUTS.
    """
    slope, loglik = flat["posterior"]["slope"].values, flat["log_likelihood"]["y"].values
    chains, draws = slope.shape[:2]
    draw = {"chain": np.arange(chains), "draw": np.arange(draws)}
    coords = {"school": SCHOOLS, "year": YEARS[:4]}
    table, rest = ("school", "year"), ("visits_dim_0",)
    stats = {
        "lp": loglik.sum(axis=2),
        "diverging": np.zeros((chains, draws), bool),
        "energy": -loglik.sum(axis=2),
        "tree_depth": np.full((chains, draws), 2),
        "step_size": np.full((chains, draws), 0.8),
    }
    like = {
        "score": (("chain", "draw", *table), loglik[..., :32].reshape(chains, draws, 8, 4)),
        "visits": (("chain", "draw", *rest), loglik[..., 32:]),
    }
    data = {"score": (table, known.y[:32].reshape(8, 4)), "visits": (rest, known.y[32:])}
    counted = {"visits_dim_0": np.arange(8)}
    groups = {
        "posterior": xr.Dataset(
            {"slope": (("chain", "draw", "predictor"), slope)},
            {**draw, "predictor": ["one", "x"]},
        ),
        "log_likelihood": xr.Dataset(like, {**draw, **coords, **counted}),
        "sample_stats": xr.Dataset(
            {name: (("chain", "draw"), values) for name, values in stats.items()}, draw
        ),
        "observed_data": xr.Dataset(data, {**coords, **counted}),
        "constant_data": xr.Dataset({"boys": ("school", np.arange(8) % 2)}, coords),
    }
    library = {"inference_library": "pymc", "inference_library_version": "5.25.1"}
    for dataset in groups.values():
        dataset.attrs = {**library, "creation_library": "ArviZ"}
    return inference_data(groups, {})


@pytest.fixture(scope="module", params=["in memory", "netCDF", "Zarr"])
def pymc(request, known, flat, tmp_path_factory):
    idata, az = like_pymc(known, flat), arviz()
    path = tmp_path_factory.mktemp("files") / "run"
    if request.param == "netCDF":
        pytest.importorskip("h5netcdf")
        idata.to_netcdf(str(path), engine="h5netcdf")
        return az.from_netcdf(str(path), engine="h5netcdf")
    if request.param == "Zarr":
        tree = idata if isinstance(idata, xr.DataTree) else idata.to_datatree()
        tree.to_zarr(path, consolidated=False, zarr_format=2)
        return xr.open_datatree(path, engine="zarr", consolidated=False, chunks={})
    return idata


def test_both_likelihoods_of_a_file_of_pymc(pymc, expected):
    found = bif.influence(pymc, train=["score", "visits"], observable="slope", shrink=None)
    ids = [f"score[{s},{y}]" for s in SCHOOLS for y in YEARS[:4]]
    assert found["train"].values.tolist() == ids + [f"visits[{i}]" for i in range(8)]
    assert found["query"].values.tolist() == ["one", "x"]
    close(found, expected)


def test_groups_of_a_file_of_pymc(pymc, flat):
    found = bif.influence(pymc, train="score", observable="slope", groups="boys", shrink=None)
    labels = np.r_[np.repeat(np.arange(8) % 2, 4), np.full(8, 2)]
    whole = bif.influence(flat, observable="slope", groups=labels, shrink=None)
    # Times of autocorrelation, and so errors, are of the rows that there are.
    whole = whole["influence"].isel(train=slice(2))
    np.testing.assert_allclose(found["influence"], whole, rtol=1e-5)
    shift = bif.reweight(
        pymc, {"school 3": 0.9}, train="score", observable="slope", groups="school"
    )
    rows = {f"r{i}": 0.9 for i in range(12, 16)}
    direct = bif.reweight(flat, rows, observable="slope")
    np.testing.assert_allclose(shift["importance"], direct["importance"], rtol=1e-5)


def test_observed_data_of_several_dims_group_rows(pymc, known):
    found = bif.influence(pymc, train="score", observable="slope", groups="score", shrink=None)
    assert found["train"].values.tolist() == np.unique(known.y[:32]).tolist()


def test_jackknife_of_a_file_of_pymc(pymc, flat):
    found = bif.jackknife(pymc, train=["score", "visits"])
    assert found["query"].values.tolist() == ["slope[one]", "slope[x]"]
    np.testing.assert_allclose(found["sd"], bif.jackknife(flat)["sd"], rtol=1e-5)


def write_cmdstan(folder, flat):
    """Write the CSV files of four chains as CmdStan does: settings, draws, step and times."""
    slope, loglik = flat["posterior"]["slope"].values, flat["log_likelihood"]["y"].values
    names = ["lp__", *COLUMNS, "slope.1", "slope.2", *(f"log_lik.{i + 1}" for i in range(40))]
    for chain, (of_slope, of_rows) in enumerate(zip(slope, loglik, strict=True)):
        rest = np.tile([0.9, 0.8, 2, 3, 0, 12.5], (len(of_slope), 1))
        table = np.concatenate([of_rows.sum(axis=1)[:, None], rest, of_slope, of_rows], axis=1)
        lines = [
            "# stan_version_major = 2",
            "# stan_version_minor = 36",
            "# stan_version_patch = 0",
            "# model = regression_model",
            "# method = sample (Default)",
            "#   sample",
            f"#     num_samples = {len(table)} (Default)",
            "#     num_warmup = 1000 (Default)",
            "#     save_warmup = false (Default)",
            "#     thin = 1 (Default)",
            f"# id = {chain + 1}",
            "# random",
            f"#   seed = {chain}",
            ",".join(names),
            "# Adaptation terminated",
            "# Step size = 0.8",
            "# Diagonal elements of inverse mass matrix:",
            "# 0.1, 0.2",
            *(",".join(f"{value:.10g}" for value in row) for row in table),
            "# ",
            "#  Elapsed Time: 0.05 seconds (Warm-up)",
            "#                0.05 seconds (Sampling)",
            "#                0.10 seconds (Total)",
            "# ",
        ]
        (folder / f"output_{chain + 1}.csv").write_text("\n".join(lines) + "\n")
    return [str(path) for path in sorted(folder.glob("output_*.csv"))]


@pytest.fixture(scope="module")
def csv(flat, tmp_path_factory):
    if not hasattr(arviz(), "from_cmdstan"):
        pytest.skip("this ArviZ does not read CmdStan's files")
    return write_cmdstan(tmp_path_factory.mktemp("stan"), flat)


def test_files_of_cmdstan(csv, expected):
    idata = arviz().from_cmdstan(csv, log_likelihood="log_lik")
    assert "log_lik" not in group(idata, "posterior")
    found = bif.influence(idata, observable="slope", shrink=None)
    close(found, expected)
    assert found["train"].values.tolist() == list(range(40))


def test_log_lik_left_among_the_parameters(csv, expected):
    idata = arviz().from_cmdstan(csv, log_likelihood=False)
    with pytest.raises(ValueError, match=r"those are \['log_lik'\] of the posterior"):
        bif.influence(idata, observable="slope")
    close(bif.influence(idata, train="log_lik", observable="slope", shrink=None), expected)
    assert bif.jackknife(idata, train="log_lik")["query"].values.tolist() == [
        "slope[0]",
        "slope[1]",
    ]
    assert bif.reweight(idata, {3: 0.5}, train="log_lik", observable="slope").sizes["query"] == 2
