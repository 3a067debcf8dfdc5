"""The kernel and the model as users of NumPyro and ArviZ know them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoLaplaceApproximation, AutoNormal

import ppl_bif as bif
from ppl_bif.numpyro import SGLD, from_guide, localize
from ppl_bif.schema import arviz
from tests.truth import make_linear

pytestmark = pytest.mark.numpyro


@pytest.fixture
def linear():
    return make_linear(100, 3)


@pytest.fixture
def model(linear):
    params = {"w": jnp.float32(linear.mode)}
    return localize(lambda p, x: x @ p["w"], params, likelihood="normal", localization=linear.gamma)


def run(kernel, linear, draws=1000, **options):
    mcmc = MCMC(kernel, num_warmup=100, num_samples=draws, progress_bar=False, **options)
    mcmc.run(jax.random.key(0), *linear.data)
    return mcmc


@pytest.mark.parametrize("chain_method", ["vectorized", "sequential", "parallel"])
def test_kernel_under_mcmc(linear, model, chain_method):
    if chain_method == "parallel" and jax.local_device_count() < 4:
        expected_warning = pytest.warns(UserWarning, match="not enough devices")
    else:
        expected_warning = _nothing()
    step = 0.3 / np.linalg.eigvalsh(linear.precision()).max()
    kernel = SGLD(model, batch_size=50, step_size=step, steps_per_draw=4)
    with expected_warning:
        mcmc = run(kernel, linear, num_chains=4, chain_method=chain_method)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["w"])
    assert draws.shape == (4, 1000, 3)
    assert np.abs(draws[0] - draws[1]).min() > 0
    flat = draws.reshape(-1, 3)
    expected = linear.sgld_covariance(step, 50)
    off = (flat.mean(0) - linear.mean()) / np.sqrt(np.diag(expected))
    assert np.abs(off).max() < 0.2
    assert np.trace(np.linalg.solve(expected, np.cov(flat.T))) / 3 == pytest.approx(1, abs=0.1)


def test_parallel_chains_on_several_devices():
    """Run in a process of its own, as the number of devices is fixed when JAX starts."""
    import subprocess
    import sys

    code = (
        "import numpyro; numpyro.set_host_device_count(4)\n"
        "import jax, jax.numpy as jnp\n"
        "from numpyro.infer import MCMC\n"
        "from ppl_bif.numpyro import SGLD, localize\n"
        "model = localize(lambda p, x: x @ p['w'], {'w': jnp.zeros(3)}, likelihood='normal',\n"
        "                 localization=1.0)\n"
        "mcmc = MCMC(SGLD(model, batch_size=8), num_warmup=5, num_samples=20, num_chains=4,\n"
        "            chain_method='parallel', progress_bar=False)\n"
        "mcmc.run(jax.random.key(0), jnp.ones((16, 3)), jnp.ones(16))\n"
        "print(mcmc.get_samples(group_by_chain=True)['w'].shape)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "(4, 20, 3)" in out.stdout


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_same_model_under_nuts(linear, model):
    draws = np.asarray(run(NUTS(model), linear, draws=2000).get_samples()["w"])
    assert np.abs(draws.mean(0) - linear.mean()).max() < 0.02
    expected = np.sqrt(np.diag(linear.covariance()))
    np.testing.assert_allclose(draws.std(0), expected, rtol=0.08)


def test_same_model_under_svi(linear, model):
    guide = AutoNormal(model, init_scale=0.05)
    svi = SVI(model, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
    result = svi.run(jax.random.key(0), 800, *linear.data, progress_bar=False)
    found = guide.median(result.params)["w"]
    assert np.abs(found - linear.mean()).max() < 0.05
    predict = Predictive(model, guide=guide, params=result.params, num_samples=5)
    assert predict(jax.random.key(1), *linear.data)["obs"].shape == (5, 100)


def test_arviz_works_on_what_comes_out(linear, model):
    az = arviz()
    kernel = SGLD(model, steps_per_draw=20)
    mcmc = run(kernel, linear, draws=300, num_chains=4, chain_method="vectorized")
    idata = az.from_numpyro(mcmc, log_likelihood=True)
    assert set(az.summary(idata).index) == {"w[0]", "w[1]", "w[2]"}
    assert float(az.rhat(idata)["w"].max()) < 1.02
    assert float(az.ess(idata)["w"].min()) > 400
    loo = az.loo(idata)
    assert np.isfinite(getattr(loo, "elpd", None) or loo.elpd_loo)
    scores = bif.influence(idata)
    expected = linear.influence(linear.x, linear.y, linear.covariance())
    assert np.corrcoef(scores["influence"].values.ravel(), expected.ravel())[0, 1] > 0.95


def test_arviz_works_on_a_sampled_run(linear, model):
    az = arviz()
    x, y = linear.data
    idata = bif.sample(
        SGLD(model, steps_per_draw=20), train=(x, y), query=(x[:5], y[:5]), draws=200,
        save_weights=True,
    )  # fmt: skip
    assert float(az.rhat(idata)["w"].max()) < 1.05
    loo = az.loo(idata, var_name="train_obs")
    assert np.isfinite(getattr(loo, "elpd", None) or loo.elpd_loo)


def test_a_laplace_fit_of_a_localized_model_is_scored(linear):
    params = {"w": jnp.float32(linear.mode)}
    cool = localize(
        lambda p, x: x @ p["w"],
        params,
        likelihood="normal",
        localization=linear.gamma / 2,
        inverse_temperature=0.5,
    )
    guide = AutoLaplaceApproximation(cool)
    svi = SVI(cool, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
    result = svi.run(jax.random.key(0), 800, *linear.data, progress_bar=False)
    run = from_guide(cool, guide, result.params, args=linear.data, draws=500)
    assert run.attrs["inverse_temperature"] == 0.5
    # Half of everything: the covariance doubles, and so does that of each row, times a half.
    expected = linear.influence(linear.x, linear.y, 2 * linear.covariance()) / 2
    found = bif.influence(run)["influence"].values
    assert (found * expected).sum() / (expected**2).sum() == pytest.approx(1, abs=0.05)


def test_a_guide_of_some_rows_is_refused():
    def model(y):
        mean = numpyro.sample("mean", numpyro.distributions.Normal())
        with numpyro.plate("data", 10, subsample_size=4):
            numpyro.sample("y", numpyro.distributions.Normal(mean, 1), obs=y[:4])

    with pytest.raises(ValueError, match="plate 'data' sees 4 of 10 rows at a time"):
        from_guide(model, AutoNormal(model), {}, args=(jnp.zeros(10),))
