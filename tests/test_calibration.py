"""Errors are widened by as much as they are too small, and by nothing where they are right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ppl_bif as bif
from ppl_bif.calibration import widening
from ppl_bif.covariance import block_covariance
from ppl_bif.shrinkage import Shrunk
from tests.series import factors, run_of
from tests.test_copula import lognormal, squares

REPLICATES = 8


def plain(train, query):
    return block_covariance(train, query, blocks=20, time=1.5)


def claiming(factor):
    """An estimate that is the sample covariance, with errors off by a factor."""
    return lambda train, query, raw: Shrunk(raw.value, raw.mcse / factor, np.zeros_like(raw.value))


@pytest.mark.parametrize("chains", [1, 2, 3, 4, 7])
def test_finds_by_how_much_errors_are_too_small(chains, record_property):
    rng = np.random.default_rng(chains)
    found = []
    for _ in range(8):
        train, query, _ = factors(rng, 2_000 // chains, chains=chains, train=250, query=40)
        found.append(widening(plain, claiming(1.5), train, query))
    record_property("found", f"{chains} chains: {np.mean(found):.3f} +- {np.std(found):.3f}")
    assert abs(np.mean(found) - 1.5) < 0.1


def test_leaves_errors_that_are_large_enough():
    train, query, _ = factors(np.random.default_rng(0), 500, train=250)
    assert widening(plain, claiming(0.5), train, query) == 1.0


@given(st.integers(0, 99), st.sampled_from([-3.0, 0.01, 50.0]))
def test_units_do_not_matter(seed, scale):
    train, query, _ = factors(np.random.default_rng(seed), 60, train=30)
    expected = widening(plain, claiming(2.0), train, query)
    assert np.isclose(widening(plain, claiming(2.0), scale * train, query), expected)


def test_series_that_do_not_move():
    still = np.zeros((4, 60, 5))
    assert widening(plain, claiming(2.0), still, still) == 1.0


@pytest.mark.parametrize(("law", "draws"), [(lognormal, 200), (squares, 200), (squares, 1000)])
def test_intervals_of_shrunk_scores_cover(law, draws, record_property):
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(REPLICATES):
        train, query, truth = law(rng, draws)
        scores = bif.influence(run_of(train, query), shrink="eb")
        covered.append(np.abs(scores["influence"] - truth) <= 1.96 * scores["mcse"])
    record_property("found", f"{law.__name__}, {draws} draws: covered {np.mean(covered):.3f}")
    assert 0.92 <= np.mean(covered) <= 0.97
