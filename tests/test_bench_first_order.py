"""The benchmark's first order and its rest are together the covariance, with less noise."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.pyro,
    # PyTorch's own, where it first differentiates forwards.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
]


@pytest.fixture
def task(monkeypatch):
    """Logistic regression on three features, at its optimum."""
    from benchmarks.lds import networks, tasks

    monkeypatch.setitem(networks.NETWORKS, "small", partial(torch.nn.Linear, 3, 2))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=60) > 0).astype(np.int64)
    fitted = torch.nn.Linear(3, 2)
    best = torch.optim.LBFGS(fitted.parameters(), max_iter=100)
    given = torch.from_numpy(x), torch.from_numpy(y)

    def loss():
        best.zero_grad()
        total = torch.nn.functional.cross_entropy(fitted(given[0]), given[1])
        total.backward()
        return total

    best.step(loss)
    weights = {name: w.detach().numpy() for name, w in fitted.named_parameters()}
    rows = tasks.Rows(x[:50], y[:50], x[50:], y[50:])
    return tasks.Task("small", rows, (weights,), np.empty(0), np.empty(0))


def sampled(task, seed, draws):
    import ppl_bif as bif
    from benchmarks.lds.ours import localized

    model = localized(task, "pyro", {"localization": 5.0})
    rows = {"train": task.train, "query": task.query}
    return bif.sample(model, **rows, draws=draws, seed=seed, progress=False, save_weights=True)


def test_spread_is_the_inverse_of_the_curvature(task, monkeypatch):
    from benchmarks.lds import first_order

    monkeypatch.setattr(first_order, "RANK", 8)
    posterior = first_order.Posterior.of(task, sampled(task, 0, draws=20))
    points = posterior.some(slice(None), first_order.CURVATURES)
    hessians = [torch.autograd.functional.hessian(posterior.loss, at) for at in points]
    curvature = torch.stack(hessians).mean(0) + 5.0 * torch.eye(8)
    found = posterior.spread().times(torch.eye(8))
    torch.testing.assert_close(found @ curvature, torch.eye(8), rtol=1e-3, atol=2e-3)


def test_both_orders_together_are_the_covariance(task):
    import ppl_bif as bif
    from benchmarks.lds import first_order

    run, other = (sampled(task, seed, draws=1000) for seed in (0, 1))
    first, rest = first_order.orders(task, run)
    both = first + first_order.scores(rest, shrink=None)
    found = bif.influence(other, shrink=None).transpose("query", "train")
    truth, error = found["influence"].values, found["mcse"].values
    scale = np.sqrt((truth**2).mean())
    assert np.sqrt(((both - truth) ** 2).mean()) < 1.2 * np.sqrt((error**2).mean())
    # The control variate takes most of the noise away, and the first order is most of the score.
    left = bif.influence(rest, shrink=None)["mcse"].values
    assert np.sqrt((left**2).mean()) < 0.6 * np.sqrt((error**2).mean())
    assert np.sqrt(((first - truth) ** 2).mean()) < 0.2 * scale
    assert np.polyfit(truth.ravel(), both.ravel(), 1)[0] == pytest.approx(1, abs=0.03)
