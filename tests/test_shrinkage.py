"""Shrunk scores against the law they were drawn from, which is known here."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ppl_bif.blocks import choose_blocks, product_time
from ppl_bif.covariance import block_covariance
from ppl_bif.shrinkage import shrink, shrink_in_scale
from tests.series import factors

SIZE = 2000


def drawn(rng, *, nulls=0.6, spread=2.0, rows=SIZE):
    """Draw true scores, most of them 0 or small, their errors, and what is seen."""
    true = rng.normal(size=(1, rows)) * spread * (rng.random((1, rows)) > nulls)
    error = rng.uniform(0.3, 2.0, size=(1, rows))
    return true, error, true + error * rng.normal(size=true.shape)


def posterior_mean(seen, error, nulls, spread):
    """The best there is: the posterior mean under the true law."""
    wide = error**2 + spread**2
    log_odds = (
        np.log(nulls / (1 - nulls))
        + np.log(wide / error**2) / 2
        - seen**2 / 2 * (1 / error**2 - 1 / wide)
    )
    return seen * spread**2 / wide / (1 + np.exp(log_odds))


def test_as_good_as_the_true_law():
    rng = np.random.default_rng(0)
    ratios, gains = [], []
    for _ in range(20):
        true, error, seen = drawn(rng)
        found = shrink(seen, error).mean
        best = posterior_mean(seen, error, 0.6, 2.0)
        ratios.append(np.mean((found - true) ** 2) / np.mean((best - true) ** 2))
        gains.append(np.mean((found - true) ** 2) / np.mean((seen - true) ** 2))
    assert np.mean(ratios) < 1.03
    assert np.mean(gains) < 0.6


def test_in_scale_as_good_as_the_true_law_whatever_the_size_of_rows():
    """Errors go with the size of a row and are told by six squares: alone they mislead."""
    rng = np.random.default_rng(3)
    ratios, alone, said, wrong = [], [], [], []
    for _ in range(10):
        scale = np.outer(np.exp(rng.normal(size=40)), np.exp(rng.normal(size=400)))
        true = 2.0 * rng.normal(size=scale.shape)
        seen = true + rng.normal(size=scale.shape)
        told = np.sqrt(rng.chisquare(6, size=scale.shape) / 6)
        best = scale * seen * 4 / 5
        value, error = scale * seen, scale * told
        found, by_own = shrink_in_scale(value, error), shrink(value, error)
        least = np.mean((best - scale * true) ** 2)
        ratios.append(np.mean((found.mean - scale * true) ** 2) / least)
        alone.append(np.mean((by_own.mean - scale * true) ** 2) / least)
        sure = found.false_sign < 0.1
        said.append(found.false_sign[sure])
        wrong.append((np.sign(true) != np.sign(found.mean))[sure])
    assert np.mean(ratios) < 1.03
    assert np.mean(alone) > 1.5
    assert 0.85 <= np.concatenate(wrong).mean() / np.concatenate(said).mean() <= 1.15


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_in_scale_rows_may_be_in_any_unit(seed, unit):
    rng = np.random.default_rng(seed)
    value, error = rng.normal(size=(3, 30)), np.outer([1.0, 2.0, 3.0], rng.uniform(1, 2, size=30))
    error[:, 4] = 0
    units = np.where(np.arange(30) == 7, unit, 1.0)
    found, other = shrink_in_scale(value, error), shrink_in_scale(value * units, error * units)
    np.testing.assert_allclose(other.mean, found.mean * units, rtol=1e-9)
    np.testing.assert_allclose(other.sd, found.sd * units, rtol=1e-9)
    np.testing.assert_allclose(other.false_sign, found.false_sign, rtol=1e-9)
    np.testing.assert_array_equal(found.mean[:, 4], value[:, 4])
    assert (found.sd[:, 4] == 0).all()


def test_intervals_cover_and_signs_are_as_often_wrong_as_said():
    rng = np.random.default_rng(1)
    covered, said, wrong = [], [], []
    for _ in range(20):
        true, error, seen = drawn(rng, nulls=0.0)
        found = shrink(seen, error)
        covered.append(np.abs(found.mean - true) <= 1.96 * found.sd)
        sure = found.false_sign < 0.1
        said.append(found.false_sign[sure])
        wrong.append((np.sign(true) != np.sign(found.mean))[sure])
    assert 0.92 <= np.mean(covered) <= 0.97
    assert 0.85 <= np.mean(np.concatenate(wrong)) / np.mean(np.concatenate(said)) <= 1.15


def test_intervals_of_shrunk_covariances_cover():
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(40):
        a, b, truth = factors(rng, 500, scale=0.4, rho=0.5, train=500)
        time = product_time(a, b)
        raw = block_covariance(a, b, blocks=choose_blocks(len(a), 500, time), time=time)
        found = shrink(*raw)
        covered.append(np.abs(found.mean - truth) <= 1.96 * found.sd)
    assert 0.92 <= np.mean(covered) <= 0.97


def test_noise_alone_is_shrunk_away():
    rng = np.random.default_rng(2)
    found = shrink(rng.normal(size=(5, SIZE)), np.ones((5, SIZE)))
    assert np.abs(found.mean).mean() < 0.1
    assert (found.false_sign > 0.025).mean() > 0.999


def test_resolved_scores_stay():
    value = np.random.default_rng(3).normal(size=(3, 500))
    found = shrink(value, np.full(value.shape, 1e-3))
    np.testing.assert_allclose(found.mean, value, atol=3e-3)


def test_scores_without_error_stay():
    value, error = np.array([[0.0, 2.0, 1.0, -0.3]]), np.array([[0.0, 0.0, 1.0, 1.0]])
    found = shrink(value, error)
    assert found.mean[0, :2].tolist() == [0.0, 2.0]
    assert found.sd[0, :2].tolist() == [0.0, 0.0]
    assert found.false_sign[0, :2].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows(rows):
    found = shrink(np.full((1, rows), 50.0), np.ones((1, rows)))
    assert np.isfinite(np.stack(found)).all()


tables = arrays(float, (2, 12), elements=st.floats(-20, 20))
errors = arrays(float, (2, 12), elements=st.floats(0.1, 10))


@given(tables, errors, st.floats(1e-3, 1e3))
def test_properties(value, error, scale):
    found = shrink(value, error)
    assert (np.abs(found.mean) <= np.abs(value) + 1e-9).all()
    assert (found.mean * value >= 0).all()
    assert (found.sd <= error * 1.5 + np.abs(value)).all()
    assert ((found.false_sign >= 0) & (found.false_sign <= 1 + 1e-9)).all()
    scaled = shrink(scale * value, scale * error)
    np.testing.assert_allclose(scaled.mean, scale * found.mean, rtol=1e-6, atol=1e-9 * scale)
    np.testing.assert_allclose(scaled.false_sign, found.false_sign, rtol=1e-6)


def test_many_scores_are_shrunk_by_the_law_of_some(monkeypatch):
    rng = np.random.default_rng(0)
    true = rng.normal(size=(2, 9000)) * np.exp(rng.normal(size=(2, 9000)))
    error = np.exp(0.3 * rng.normal(size=true.shape))
    value = true + error * rng.normal(size=true.shape)
    some = shrink(value, error)
    monkeypatch.setattr("ppl_bif.shrinkage.FITTED", 9000)
    every = shrink(value, error)
    assert np.sqrt(np.mean(((some.mean - every.mean) / every.sd) ** 2)) < 0.05
    np.testing.assert_allclose(some.false_sign, every.false_sign, atol=0.05)
