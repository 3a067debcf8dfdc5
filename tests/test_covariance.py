"""Covariances of series along chains: their values, and whether their errors are honest."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from ppl_bif import tiles
from ppl_bif.blocks import choose_blocks, inflation, product_time
from ppl_bif.correlation import block_correlation
from ppl_bif.covariance import block_covariance, covariance
from tests.series import ar1, correlated


@st.composite
def cases(draw, dtype="float64"):
    """Two tables of series ``(chain, draw, row)`` and a number of blocks."""
    chains, draws = draw(st.integers(1, 4)), draw(st.integers(4, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    rows = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    scale = 10.0 ** draw(st.integers(-3, 3))
    a, b = (scale * rng.normal(size=(chains, draws, n)).astype(dtype) for n in rows)
    return a, b + (a[..., :1] if draw(st.booleans()) else 0), draw(st.integers(2, draws // 2))


def by_hand(a, b, blocks):
    """Covariance of two series ``(chain, draw)``, chain by chain and block by block."""
    chains, draws = a.shape
    edges = [draws * i // blocks for i in range(blocks + 1)]
    total = 0.0
    for x, y in zip(a, b, strict=True):
        x, y = x - x.mean(), y - y.mean()
        parts = [slice(i, j) for i, j in pairwise(edges)]
        means = sum((p.stop - p.start) * x[p].mean() * y[p].mean() for p in parts)
        total += ((x * y).sum() + means / (blocks - 1)) / (chains * draws)
    return total


@given(cases())
def test_values_are_those_of_a_direct_computation(case):
    train, query, blocks = case
    score = block_covariance(train, query, blocks=blocks)
    for q in range(query.shape[2]):
        for t in range(train.shape[2]):
            value = by_hand(train[..., t], query[..., q], blocks)
            scale = train[..., t].std() * query[..., q].std()
            np.testing.assert_allclose(score.value[q, t], value, atol=1e-9 * scale)


@pytest.mark.parametrize("estimate", [block_covariance, block_correlation])
@given(case=cases())
def test_symmetric(estimate, case):
    train, query, blocks = case
    one = estimate(train, query, blocks=blocks)
    other = estimate(query, train, blocks=blocks)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b.T, rtol=1e-9, atol=1e-12 * np.abs(a).max())


@given(case=cases(), weights=st.tuples(st.floats(-3, 3), st.floats(-3, 3)))
def test_linear_in_each_argument(case, weights):
    train, query, blocks = case
    values = block_covariance(train, query, blocks=blocks).value
    a, b = weights
    for table, axis in ((train, 1), (query, 0)):
        mixed = a * table[..., :1] + b * table[..., -1:]
        pair = (mixed, query) if axis == 1 else (train, mixed)
        found = block_covariance(*pair, blocks=blocks).value
        wanted = a * values.take([0], axis) + b * values.take([-1], axis)
        np.testing.assert_allclose(found, wanted, atol=1e-8 * np.abs(values).max())


@pytest.mark.parametrize("estimate", [block_covariance, block_correlation])
@given(case=cases(), scale=st.sampled_from([-7.0, -1e-3, 0.5, 1e4]))
def test_scaling(estimate, case, scale):
    train, query, blocks = case
    one = estimate(train, query, blocks=blocks)
    other = estimate(scale * train, query, blocks=blocks)
    by = np.sign(scale) if estimate is block_correlation else scale
    np.testing.assert_allclose(other.value, by * one.value, rtol=1e-6)
    np.testing.assert_allclose(
        other.mcse, np.abs(by) * one.mcse, rtol=1e-6, atol=1e-6 * np.abs(by * one.value).max()
    )


@pytest.mark.parametrize("estimate", [block_covariance, block_correlation])
@given(case=cases(), seed=st.integers(0, 99))
def test_constants_and_order_do_not_matter(estimate, case, seed):
    train, query, blocks = case
    rng = np.random.default_rng(seed)
    rows, chains = rng.permutation(train.shape[2]), rng.permutation(len(train))
    shift = train.std() * rng.normal(size=(len(train), 1, train.shape[2]))
    one = estimate(train, query, blocks=blocks)
    other = estimate((train + shift)[chains][..., rows], query[chains], blocks=blocks)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a[:, rows], b, rtol=1e-6, atol=1e-6 * np.abs(one.value).max())


@given(cases())
def test_correlations(case):
    train, query, blocks = case
    score = block_correlation(train, query, blocks=blocks)
    assert (np.abs(score.value) <= 1 + 1e-12).all()
    own = block_correlation(train, train, blocks=blocks)
    np.testing.assert_allclose(np.diag(own.value), 1)
    np.testing.assert_allclose(np.diag(own.mcse), 0, atol=1e-6)
    assert np.isfinite(score.mcse).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(level=st.floats(-1e3, 1e3), seed=st.integers(0, 99))
def test_a_constant_series_has_no_covariance(dtype, level, seed):
    rng = np.random.default_rng(seed)
    moving = rng.normal(size=(3, 30, 2)).astype(dtype)
    still = np.full((3, 30, 1), level, dtype) + np.arange(3).reshape(3, 1, 1).astype(dtype)
    both = np.concatenate([moving, still], axis=2)
    for estimate in (block_covariance, block_correlation):
        score = estimate(still, both, blocks=5)
        assert (score.value == 0).all()
        assert (score.mcse == 0).all()


@pytest.mark.parametrize("estimate", [block_covariance, block_correlation])
def test_tiles_do_not_show(estimate, monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 50, 7)), rng.normal(size=(3, 50, 5))
    whole = estimate(a, b, blocks=4)
    monkeypatch.setattr(tiles, "TILE", (2, 3))
    for one, other in zip(whole, estimate(a, b, blocks=4), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_errors_are_those_of_means_of_blocks():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 60, 1)), rng.normal(size=(2, 60, 1))
    x, y = (s - s.mean(axis=1, keepdims=True) for s in (a, b))
    means = [part.mean() for part in np.split((x * y).ravel(), 10)]
    found = block_covariance(a, b, blocks=5)
    assert covariance(a, b)[0, 0] == pytest.approx(np.mean(means))
    # What centring hides is of relative order 1 / draws.
    assert found.mcse[0, 0] == pytest.approx(np.std(means, ddof=1) / np.sqrt(10), rel=0.1)


@pytest.mark.parametrize("size", [1e-24, 1e10])
def test_single_precision_holds_the_tiny_and_the_huge(size):
    rng = np.random.default_rng(0)
    a, b = correlated(rng, (4, 1000, 5), 0.8, 0.5)
    usual = block_covariance(a, b, blocks=20)
    found = block_covariance(np.float32(size * a), np.float32(b), blocks=20)
    np.testing.assert_allclose(found.value, size * usual.value, rtol=1e-4)
    np.testing.assert_allclose(found.mcse, size * usual.mcse, rtol=1e-4)


def test_single_precision_is_enough():
    rng = np.random.default_rng(0)
    a, b = correlated(rng, (4, 1000, 5), 0.8, 0.5)
    exact = block_covariance(1e-3 * a - 2, 1e-3 * b - 3, blocks=20)
    single = block_covariance(np.float32(1e-3 * a - 2), np.float32(1e-3 * b - 3), blocks=20)
    np.testing.assert_allclose(single.value, exact.value, atol=2e-3 * exact.value.max())
    np.testing.assert_allclose(single.mcse, exact.mcse, rtol=2e-3)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8, 0.9])
def test_the_time_of_products_is_that_of_theory(rho):
    rng = np.random.default_rng(1)
    a, b = ar1(rng, (4, 5000, 20), rho), ar1(rng, (4, 5000, 20), rho)
    # The product of two independent AR(1) series has autocorrelation rho^2 at lag 1.
    tau = (1 + rho**2) / (1 - rho**2)
    assert product_time(a, b) == pytest.approx(tau, rel=0.15)


def test_the_time_of_what_does_not_move_is_one():
    still = np.ones((2, 50, 3))
    assert product_time(still, still) == 1.0


@given(st.integers(1, 200), st.integers(2, 5000), st.floats(1, 300))
def test_bounds_of_blocks(chains, draws, time):
    blocks = choose_blocks(chains, draws, time)
    assert 2 <= blocks <= max(2, draws // 2)
    assert chains * blocks <= max(64 + chains, 2 * chains)
    if draws >= 5 * 8 * time and chains <= 15:
        assert blocks >= 5
        assert draws / blocks >= 8 * time


def test_inflation():
    assert inflation(1000, 20, 1.0) == 1.0
    assert 1.02 < inflation(1000, 20, 50 / 8) < 1.05
    assert inflation(10, 5, 1e6) == pytest.approx(2**0.5)


def coverage(rho, correlation, draws, runs=2000, chains=4):
    """Share of runs whose 95% interval holds the truth, every pair of rows being a run."""
    hits = []
    for seed in range(runs // 200):
        rng = np.random.default_rng(seed)
        a, b = correlated(rng, (chains, draws, 200), rho, correlation)
        time = product_time(a, b)
        blocks = choose_blocks(chains, draws, time)
        score = block_covariance(a, b, blocks=blocks, time=time)
        z = (np.diag(score.value) - correlation) / np.diag(score.mcse)
        hits.append(np.abs(z) < student.ppf(0.975, chains * blocks - 1))
    return np.mean(hits)


@pytest.mark.parametrize(
    ("rho", "correlation", "draws"), [(0.0, 0.5, 500), (0.8, 0.5, 500), (0.9, 0.0, 1000)]
)
def test_intervals_cover_the_truth(rho, correlation, draws):
    assert 0.92 <= coverage(rho, correlation, draws) <= 0.97


def test_correlations_cover_the_truth():
    hits = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        a, b = correlated(rng, (4, 1000, 200), 0.8, 0.5)
        score = block_correlation(a, b, blocks=24, time=4.6)
        hits.append(np.abs(np.diag(score.value) - 0.5) < 1.98 * np.diag(score.mcse))
    assert 0.92 <= np.mean(hits) <= 0.97
