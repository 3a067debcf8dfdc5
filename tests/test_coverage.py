"""The error of a score is honest: over replicate runs, intervals cover the truth."""

from typing import NamedTuple

import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.schema import group, inference_data, root_attrs
from tests.backends import get_backend, in_turn, marked
from tests.truth import make_linear

RUNS, CHAINS, QUERIES = 100, 4, 8
KERNELS = {
    "SGLD": {"batch_size": 20, "steps_per_draw": 4},
    "UnderdampedLangevin": {"steps_per_draw": 2},
    "HMC": {"steps_per_draw": 1},
}


class Replicates(NamedTuple):
    """Independent runs, and the law that their draws have."""

    runs: list
    linear: object
    covariance: np.ndarray
    record: str

    def truth(self, kind="covariance"):
        """Return the scores by their formula, ``(query, train)``."""
        whole = self.linear.influence(*self.linear.data, self.covariance)
        own = np.sqrt(np.diag(whole))
        return (whole / np.outer(own, own) if kind == "correlation" else whole)[:QUERIES]

    def covered(self, **estimator):
        """Tell which intervals hold the truth, ``(run, query, train)``."""
        truth = self.truth(estimator.get("kind", "covariance"))
        scores = [bif.influence(run, **estimator) for run in self.runs]
        # A row correlates with itself by exactly 1, without error: rounding is allowed for.
        return np.array([np.abs(s["influence"] - truth) <= 1.96 * s["mcse"] + 1e-6 for s in scores])


def replicate(backend, linear, name, settings, *, runs, draws):
    """Sample all runs at once, each of a few chains."""
    x, y = linear.data
    model = get_backend(backend).linear(linear.mode, localization=linear.gamma)
    everything = bif.sample(
        model.make_kernel(name, **settings),
        train=(x, y),
        query=(x[:QUERIES], y[:QUERIES]),
        chains=runs * CHAINS,
        draws=draws,
        warmup=30,
        seed=1,
    )
    parts = {name: group(everything, name) for name in ("log_likelihood", "sample_stats")}
    return [
        inference_data({n: p.isel(chain=slice(c, c + CHAINS)) for n, p in parts.items()}, attrs)
        for attrs in [root_attrs(everything)]
        for c in range(0, runs * CHAINS, CHAINS)
    ]


@pytest.fixture(scope="module", params=in_turn(KERNELS))
def replicates(request):
    linear, (kernel, backend) = make_linear(40, 3, gamma=10.0), request.param
    settings, law = KERNELS[kernel], linear.covariance()
    if kernel == "SGLD":
        eps = 0.3 / np.linalg.eigvalsh(linear.precision()).max()
        settings, law = {**settings, "step_size": eps}, linear.sgld_covariance(eps, 20)
    runs = replicate(backend, linear, kernel, settings, runs=RUNS, draws=400)
    return Replicates(runs, linear, law, f"{backend}, {kernel}")


@pytest.mark.parametrize("kind", ["covariance", "correlation"])
def test_intervals_cover(replicates, kind, record_property):
    share = replicates.covered(kind=kind, shrink=None).mean()
    record_property("found", f"{replicates.record}, {kind}: {share:.4f} of truths covered")
    assert 0.92 <= share <= 0.97


@pytest.fixture(scope="module", params=marked(["pyro"]))
def shrunk(request):
    """Runs with rows enough to be shrunk, and fewer draws than would make that needless."""
    linear = make_linear(250, 100)
    settings = KERNELS["UnderdampedLangevin"]
    runs = replicate(request.param, linear, "UnderdampedLangevin", settings, runs=15, draws=400)
    return Replicates(runs, linear, linear.covariance(), f"{request.param}, shrunk")


def test_intervals_of_shrunk_scores_cover(shrunk, record_property):
    """They are posterior intervals: right on average over the pairs, not for each of them."""
    share = shrunk.covered(shrink="eb").mean()
    record_property("found", f"{shrunk.record}: {share:.4f} of truths covered")
    assert 0.92 <= share <= 0.97


def test_shrunk_scores_are_nearer_the_truth_and_their_signs_are_known(shrunk, record_property):
    truth, wrong = shrunk.truth(), []
    error = {"eb": [], None: []}
    for run in shrunk.runs:
        for shrink, squares in error.items():
            scores = bif.influence(run, shrink=shrink)
            squares.append(float(((scores["influence"] - truth) ** 2).mean()))
            if shrink:
                off = np.sign(scores["influence"]) != np.sign(truth)
                wrong.append(off.values[scores["resolved"].values])
    better = np.mean(error["eb"]) / np.mean(error[None])
    rate = np.concatenate(wrong).mean()
    record_property(
        "found",
        f"{shrunk.record}: mean squared error {better:.3f} of the plain one, {rate:.4f} of "
        "resolved signs wrong",
    )
    assert better < 0.95
    assert rate < 0.025
