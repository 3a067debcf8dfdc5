"""The error of a score is honest: over replicate runs, intervals cover the truth."""

import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.schema import group, inference_data, root_attrs
from tests.truth import make_linear

RUNS, CHAINS = 200, 4


@pytest.mark.parametrize("kind", ["covariance", "correlation"])
def test_intervals_cover(backend, kind):
    linear = make_linear(40, 3, gamma=10.0)
    eps = 0.3 / np.linalg.eigvalsh(linear.precision()).max()
    model = backend.linear(linear.mode, localization=linear.gamma)
    x, y = linear.data
    everything = bif.sample(
        backend.SGLD(model, step_size=eps, batch_size=20, steps_per_draw=4),
        train=(x, y),
        query=(x[:8], y[:8]),
        chains=RUNS * CHAINS,
        draws=500,
        warmup=30,
        seed=1,
    )
    truth = _truth(linear, linear.sgld_covariance(eps, 20), x[:8], y[:8], kind)
    covered = [_covers(everything, run, truth, kind) for run in range(RUNS)]
    assert 0.92 <= np.mean(covered) <= 0.97


def _truth(linear, covariance, x, y, kind):
    influence = linear.influence(x, y, covariance)
    if kind == "covariance":
        return influence
    own = np.sqrt(np.diag(linear.influence(linear.x, linear.y, covariance)))
    return influence / np.outer(own[: len(x)], own)


def _covers(everything, run, truth, kind):
    chains = slice(run * CHAINS, (run + 1) * CHAINS)
    groups = {
        name: group(everything, name).isel(chain=chains)
        for name in ("log_likelihood", "sample_stats")
    }
    scores = bif.influence(inference_data(groups, root_attrs(everything)), kind=kind, shrink=None)
    # A row correlates with itself by exactly 1, without error: rounding is allowed for.
    return np.abs(scores["influence"].values - truth) <= 1.96 * scores["mcse"].values + 1e-6
