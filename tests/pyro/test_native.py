"""The kernel and the model as users of Pyro and ArviZ know them."""

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoNormal

import ppl_bif as bif
from ppl_bif.pyro import SGLD, from_guide, from_pyro, localize
from ppl_bif.schema import arviz
from tests.conjugate import regression
from tests.truth import make_linear

pytestmark = pytest.mark.pyro


class Linear(torch.nn.Module):
    def __init__(self, w):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(np.float32(w)))

    def forward(self, x):
        return x @ self.w


@pytest.fixture
def linear():
    return make_linear(100, 3)


@pytest.fixture
def model(linear):
    return localize(Linear(linear.mode), likelihood="normal", localization=linear.gamma)


@pytest.fixture
def data(linear):
    return tuple(map(torch.tensor, linear.data))


def run(kernel, data, draws=2000, **options):
    pyro.set_rng_seed(0)
    mcmc = MCMC(kernel, num_samples=draws, warmup_steps=100, disable_progbar=True, **options)
    mcmc.run(*data)
    return mcmc


def test_kernel_under_mcmc(linear, model, data):
    step = 0.3 / np.linalg.eigvalsh(linear.precision()).max()
    kernel = SGLD(model, batch_size=50, step_size=step, steps_per_draw=4)
    draws = run(kernel, data).get_samples()["w"].numpy()
    expected = linear.sgld_covariance(step, 50)
    off = (draws.mean(0) - linear.mean()) / np.sqrt(np.diag(expected))
    assert np.abs(off).max() < 0.3
    assert np.trace(np.linalg.solve(expected, np.cov(draws.T))) / 3 == pytest.approx(1, abs=0.15)


# Where there are fewer cores than chains, Pyro says that it runs them in turn.
@pytest.mark.filterwarnings("ignore:num_chains=4 is more than available_cpu")
def test_arviz_works_on_several_chains(linear, model, data):
    az = arviz()
    mcmc = run(SGLD(model, steps_per_draw=10), data, draws=300, num_chains=4)
    assert mcmc.get_samples(group_by_chain=True)["w"].shape == (4, 300, 3)
    assert mcmc.diagnostics()["divergences"]["chain 3"] == []
    idata = from_pyro(mcmc)
    assert set(az.summary(idata).index) == {"w[0]", "w[1]", "w[2]"}
    assert float(az.rhat(idata)["w"].max()) < 1.03
    assert float(az.ess(idata)["w"].min()) > 200
    loo = az.loo(idata)
    assert np.isfinite(getattr(loo, "elpd", None) or loo.elpd_loo)
    scores = bif.influence(idata)
    expected = linear.influence(linear.x, linear.y, linear.covariance())
    assert np.corrcoef(scores["influence"].values.ravel(), expected.ravel())[0, 1] > 0.95


def test_divergences_are_counted(model, data):
    mcmc = run(SGLD(model, step_size=100.0), data, draws=60)
    assert mcmc.diagnostics()["divergences"]["chain 0"]
    assert from_pyro(mcmc)["sample_stats"]["diverging"].any()


def test_same_model_under_nuts(linear, model, data):
    mcmc = run(NUTS(model), data, draws=800)
    draws = mcmc.get_samples()["w"].numpy()
    assert np.abs(draws.mean(0) - linear.mean()).max() < 0.02
    expected = np.sqrt(np.diag(linear.covariance()))
    np.testing.assert_allclose(draws.std(0), expected, rtol=0.12)


def test_same_model_under_svi(linear, model, data):
    pyro.clear_param_store()
    guide = AutoNormal(model, init_scale=0.05)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(500):
        svi.step(*data)
    found = guide.median()["w"].detach().numpy()
    assert np.abs(found - linear.mean()).max() < 0.05
    predicted = Predictive(model, guide=guide, num_samples=5)(*data)
    assert predicted["obs"].shape == (5, 100)


@pytest.fixture(scope="module")
def regression_nuts():
    """A regression with a named deterministic value, under NUTS."""
    known = regression(rows=30)

    def regress(x, y):
        slope = pyro.sample("slope", pyro.distributions.Normal(torch.zeros(2), 10**0.5).to_event(1))
        mean = pyro.deterministic("mean", slope[..., :1] * x[:, 0] + slope[..., 1:] * x[:, 1])
        with pyro.plate("rows", len(y)):
            pyro.sample("y", pyro.distributions.Normal(mean, 1), obs=y)

    data = tuple(torch.tensor(np.float32(of)) for of in (known.x, known.y))
    mcmc = run(NUTS(regress), data, draws=4000)
    return known, mcmc


def test_influence_of_a_model_under_nuts(regression_nuts):
    known, mcmc = regression_nuts
    idata = from_pyro(mcmc)
    assert set(idata["log_likelihood"].data_vars) == {"y"}
    assert set(idata["observed_data"].data_vars) == {"y"}
    assert set(idata["posterior"].data_vars) == {"slope", "mean"}
    made = idata["posterior"]["slope"].values @ known.x.T
    np.testing.assert_allclose(idata["posterior"]["mean"], made, rtol=1e-5, atol=1e-5)
    found = bif.influence(idata, observable="slope", shrink=None)
    mean, covariance = known.posterior(np.ones(30))
    exact = covariance @ (known.x * (known.y - known.x @ mean)[:, None]).T
    off = (found["influence"].values - exact) / found["mcse"].values
    assert np.sqrt(np.mean(off**2)) < 1.8
    assert (found["influence"].values * exact).sum() / (exact**2).sum() == pytest.approx(1, abs=0.1)


def test_from_pyro_of_arviz_says_the_same(regression_nuts):
    az, (_, mcmc) = arviz(), regression_nuts
    if not hasattr(az, "from_pyro"):
        pytest.skip("this ArviZ has no from_pyro")
    theirs = az.from_pyro(mcmc, log_likelihood=True)
    found = bif.influence(theirs, train="y", observable="slope", shrink=None)
    ours = bif.influence(from_pyro(mcmc), observable="slope", shrink=None)
    np.testing.assert_allclose(found["influence"], ours["influence"], rtol=1e-4, atol=1e-7)


def test_the_temperature_of_a_localized_model_is_kept(linear, data):
    warm = localize(
        Linear(linear.mode), likelihood="normal", localization=linear.gamma, inverse_temperature=0.5
    )
    idata = from_pyro(run(SGLD(warm, steps_per_draw=2), data, draws=20))
    assert idata.attrs["inverse_temperature"] == 0.5


def test_a_laplace_fit_of_a_localized_model_is_scored(linear, data):
    cool = localize(
        Linear(linear.mode),
        likelihood="normal",
        localization=linear.gamma / 2,
        inverse_temperature=0.5,
    )
    pyro.clear_param_store()
    guide = AutoLaplaceApproximation(cool)
    svi = SVI(cool, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(500):
        svi.step(*data)
    found = from_guide(cool, guide, args=data, draws=500)
    assert found.attrs["inverse_temperature"] == 0.5
    # Half of everything: the covariance doubles, and so does that of each row, times a half.
    expected = linear.influence(linear.x, linear.y, 2 * linear.covariance()) / 2
    scores = bif.influence(found)["influence"].values
    assert (scores * expected).sum() / (expected**2).sum() == pytest.approx(1, abs=0.05)


def test_a_guide_of_some_rows_is_refused():
    def model(y):
        mean = pyro.sample("mean", pyro.distributions.Normal(0, 1))
        with pyro.plate("data", 10, subsample_size=4) as rows:
            pyro.sample("y", pyro.distributions.Normal(mean, 1), obs=y[rows])

    with pytest.raises(ValueError, match="plate 'data' sees 4 of 10 rows at a time"):
        from_guide(model, AutoNormal(model), args=(torch.zeros(10),))
