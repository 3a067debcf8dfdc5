"""What ArviZ computes and draws of runs that this library makes, in either ArviZ."""

import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.schema import arviz
from tests.backends import get_backend
from tests.truth import make_linear

# Before ArviZ, whose converter takes for granted that its parts are loaded.
pytest.importorskip("numpyro.infer")
# What ArviZ warns of beside our layout, such as pandas' next version, is its own affair.
pytestmark = [pytest.mark.numpyro, pytest.mark.filterwarnings("default")]

az = arviz()
NEW = int(az.__version__.split(".")[0]) >= 1
RUNS = ("in memory", "stored", "streamed", "tokens", "nuts")
GROUPS = ("posterior", "log_likelihood")
NUMBERS = ("ess", "rhat", "mcse")
PLOTS = (
    ("trace_dist", "rank_dist", "rank", "ess_evolution", "forest", "autocorr")
    if NEW
    else ("trace", "rank", "ess", "forest", "autocorr")
)


@pytest.fixture(scope="module")
def linear():
    return make_linear(40, 3)


@pytest.fixture(scope="module")
def model(linear):
    return get_backend("numpyro").linear(linear.mode, localization=linear.gamma)


@pytest.fixture(scope="module")
def nuts(linear, model):
    import jax
    from numpyro.infer import MCMC, NUTS, Predictive

    mcmc = MCMC(
        NUTS(model), num_warmup=100, num_samples=100, num_chains=4, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(0), *linear.data)
    predict = Predictive(model, mcmc.get_samples(group_by_chain=True), batch_ndims=2)
    predicted = predict(jax.random.key(1), *linear.data)
    # The observed site is given its values where they are passed.
    noise = np.random.default_rng(0).normal(size=predicted["obs"].shape)
    predicted = {"obs": np.asarray(predicted["obs"]) + noise}
    return az.from_numpyro(mcmc, posterior_predictive=predicted, log_likelihood=True)


def words():
    """Make a network that gives each row three log-likelihoods, and its rows."""
    import jax.numpy as jnp

    from ppl_bif.numpyro import localize

    def pointwise(outputs, batch):
        return -((batch[1] - outputs) ** 2) / 2

    rng = np.random.default_rng(0)
    x, y = np.float32(rng.normal(size=(12, 3))), np.float32(rng.normal(size=(12, 3)))
    net = localize(
        lambda p, x: x * p["w"], {"w": jnp.zeros(3)}, likelihood=pointwise, localization=1.0
    )
    return net.make_kernel("SGLD", batch_size=12), {"train": (x, y), "query": (x[:2], y[:2])}


@pytest.fixture(scope="module", params=RUNS)
def run(request, linear, model, nuts, tmp_path_factory):
    if request.param == "nuts":
        return nuts
    x, y = linear.data
    kernel = model.make_kernel("SGLD", batch_size=40, steps_per_draw=8)
    rows = {"train": (x, y), "query": (x[:5], y[:5])}
    if request.param == "tokens":
        kernel, rows = words()
    options = {"draws": 104, "save_weights": True, "stream": request.param == "streamed"}
    if request.param in ("in memory", "tokens"):
        return bif.sample(kernel, **rows, **options)
    path = tmp_path_factory.mktemp("runs") / "run.zarr"
    bif.sample(kernel, **rows, **options, store=path)
    return bif.open_store(path)


def some(run, group):
    """Name two elements of the first variable of a group."""
    array = next(iter(run[group].data_vars.values()))
    last = [dim for dim in array.dims if dim not in ("chain", "draw")]
    return {
        "var_names": [array.name],
        "coords": {dim: array[dim].values[: 2 if dim == last[0] else 1] for dim in last},
    }


def row_variable(run):
    return next(iter(run["log_likelihood"].data_vars))


@pytest.mark.parametrize("group", GROUPS)
def test_numbers_are_those_of_every_variable(run, group):
    dataset = run[group]
    elements = sum(array[0, 0].size for array in dataset.data_vars.values())
    summary = az.summary(run, group=group)
    assert len(summary) == elements
    assert not summary.isna().any(axis=None)
    for name in NUMBERS:
        function = getattr(az, name)
        found = function(run, group=group) if NEW else function(dataset)
        assert set(found.data_vars) == set(dataset.data_vars), name
        assert all(np.isfinite(array).all() for array in found.data_vars.values()), name


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", PLOTS)
def test_plots(run, group, name):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    function = getattr(az, f"plot_{name}")
    drawn = (
        function(run, group=group, backend="matplotlib", **some(run, group))
        if NEW
        else function(run[group], **some(run, group))
    )
    assert drawn is not None
    plt.close("all")


def test_a_plot_of_all_weights(run):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    assert az.plot_rank(run) is not None
    plt.close("all")


def test_leave_one_out_and_its_k(run):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    loo = az.loo(run, var_name=row_variable(run), pointwise=True)
    assert np.isfinite(loo.elpd if NEW else loo.elpd_loo)
    assert len(az.compare({"one": loo, "other": loo})) == 2
    assert len(az.compare({"one": run, "other": run}, var_name=row_variable(run))) == 2
    assert az.plot_khat(loo) is not None
    plt.close("all")


def test_plots_of_predictions(nuts):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    if NEW:
        assert az.plot_ppc_dist(nuts, num_samples=5, backend="matplotlib") is not None
        assert az.plot_loo_pit(nuts, backend="matplotlib") is not None
    else:
        assert az.plot_ppc(nuts, num_pp_samples=5) is not None
        assert az.plot_loo_pit(nuts, y="obs") is not None
    plt.close("all")


def test_values_are_those_of_the_draws(run):
    """Names must not only be there: the first row of the summary is the first element."""
    array = next(iter(run["log_likelihood"].data_vars.values()))
    first = array.isel({dim: 0 for dim in array.dims if dim not in ("chain", "draw")})
    summary = az.summary(run, group="log_likelihood", round_to="none")
    assert float(summary["mean"].iloc[0]) == pytest.approx(float(first.mean()), rel=1e-5)
