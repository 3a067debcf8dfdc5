"""The lognormal form against the law for which it is exact."""

import numpy as np
import pytest

from ppl_bif.covariance import block_covariance, choose_blocks, product_time
from ppl_bif.lognormal import lognormal_covariance
from ppl_bif.shrinkage import shrink
from tests.series import factors

REPLICATES, DRAWS, SCALE, TRAIN = 40, 500, 0.4, 500


def estimates(rng, shrunk):
    """One run of jointly Gaussian log losses: estimates in both forms, and the truth."""
    a, b, log_covariance = factors(rng, DRAWS, scale=SCALE, rho=0.5, train=TRAIN)
    own = np.random.default_rng(7)
    loading_a = SCALE * own.normal(size=(3, a.shape[2]))
    loading_b = SCALE * own.normal(size=(3, b.shape[2]))
    level = np.outer(*(np.exp((1 + (x**2).sum(0)) / 2) for x in (loading_b, loading_a)))
    train, query = -np.exp(a), -np.exp(b)
    time = product_time(a, b)
    blocks = choose_blocks(len(a), DRAWS, time)
    form = lognormal_covariance(train, query, blocks=blocks, time=time, shrunk=shrunk)
    raw = block_covariance(train, query, blocks=blocks, time=product_time(train, query))
    return form, raw, level * np.expm1(log_covariance)


@pytest.mark.parametrize("shrunk", [False, True])
def test_intervals_cover(shrunk):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(REPLICATES):
        form, _, truth = estimates(rng, shrunk)
        covered.append(np.abs(form.value - truth) <= 1.96 * form.mcse)
    assert 0.92 <= np.mean(covered) <= 0.97, np.mean(covered)


def test_intervals_of_shrunk_covariances_cover():
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(REPLICATES):
        a, b, truth = factors(rng, DRAWS, scale=SCALE, rho=0.5, train=TRAIN)
        time = product_time(a, b)
        raw = block_covariance(a, b, blocks=choose_blocks(len(a), DRAWS, time), time=time)
        found = shrink(*raw)
        covered.append(np.abs(found.mean - truth) <= 1.96 * found.sd)
    assert 0.92 <= np.mean(covered) <= 0.97


def test_less_noise_than_the_sample_covariance_and_no_bias():
    rng = np.random.default_rng(1)
    forms, raws = [], []
    for _ in range(REPLICATES):
        form, raw, truth = estimates(rng, False)
        forms.append(form.value - truth)
        raws.append(raw.value - truth)
    assert np.std(forms, axis=0).mean() < 0.8 * np.std(raws, axis=0).mean()
    z = np.mean(forms, axis=0) / (np.std(forms, axis=0) / np.sqrt(REPLICATES))
    assert np.abs(z.mean()) < 0.5
    assert np.abs(np.mean(forms, axis=0)).mean() < 0.05 * np.abs(truth).mean()


def test_a_loss_of_zero_is_floored():
    rng = np.random.default_rng(2)
    loss = np.exp(rng.normal(size=(2, 50, 2))).astype(np.float32)
    loss[0, 3, 0] = 0
    found = lognormal_covariance(-loss, -loss, blocks=5, time=1.0, shrunk=False)
    assert np.isfinite(found.value).all()
