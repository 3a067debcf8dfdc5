"""The diagnosis: good runs pass, and each way to go wrong is found and named."""

import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from ppl_bif.convergence import agreement, mean_known, scores_of, stability, top_resolved
from ppl_bif.diagnostics import table
from tests.series import ar1, factors, run_of

VARIABLES = {
    "point": ("rhat", "ess", "drift"),
    "query": ("rank_agreement_chains", "rank_agreement_halves"),
    None: (
        "rhat_high", "ess_low", "drift_share", "rank_reliability", "rank_agreement", "loss_rise",
        "distance", "distance_ratio", "energy_ratio", "gradient_noise_share", "resolved_share",
        "draws_needed", "chains_lost",
    ),
}  # fmt: skip


def good(draws=1000, **changes):
    train, query, _ = factors(np.random.default_rng(0), draws)
    return train, query, changes


def diagnose(train, query, **run):
    return bif.diagnose(run_of(train, query, **run), verbose=False)


def verdicts(check):
    return {label: verdict for label, _, _, verdict in table(check)}


def failed(check):
    return " ".join(check.attrs["reasons"])


def test_a_good_run_passes():
    train, query, _ = good()
    check = diagnose(train, query)
    assert check.attrs["verdict"] == "pass"
    assert check.attrs["reasons"] == []
    for dim, names in VARIABLES.items():
        for name in names:
            assert check[name].dims == ((dim,) if dim else ())
    assert check.sizes == {"point": 52, "query": 12}
    assert check["group"].values.tolist() == ["train"] * 40 + ["query"] * 12
    assert check["drift_share"] < 0.01
    assert check["rank_reliability"] > 0.9


def test_drifting_chains():
    train, query, _ = good()
    trend = np.linspace(-2, 2, train.shape[1])[:, None]
    check = diagnose(train + trend, query + trend)
    assert check.attrs["verdict"] == "fail"
    assert verdicts(check)["share of variance that is a linear trend"] == "fail"
    assert "losses drift" in failed(check)
    assert "more warmup" in failed(check)
    # Draws spread over -2 ... 2 have variance 4/3, beside about 1.75 of their own.
    assert float(check["drift_share"]) == pytest.approx(4 / 3 / (4 / 3 + 1.6), abs=0.1)


def test_chains_stuck_apart():
    train, query, _ = good()
    apart = np.arange(4).reshape(4, 1, 1)
    check = diagnose(train + apart, query + apart)
    assert check.attrs["verdict"] == "fail"
    assert "chains disagree on the losses of single rows" in failed(check)
    assert float(check["rhat_high"]) > 1.1
    # Scores are centred within chains, and see nothing of it.
    np.testing.assert_allclose(check["resolved_share"], diagnose(train, query)["resolved_share"])


def test_nothing_but_noise():
    rng = np.random.default_rng(0)
    check = diagnose(ar1(rng, (4, 1000, 40), 0.3), ar1(rng, (4, 1000, 12), 0.3))
    assert check.attrs["verdict"] == "fail"
    assert "hardly more scores than chance are resolved" in failed(check)
    assert "rankings would not come out alike again" in failed(check)
    assert float(check["resolved_share"]) == pytest.approx(0.05, abs=0.03)
    assert float(check["draws_needed"]) > 10_000


def test_few_effective_draws():
    train, query, _ = factors(np.random.default_rng(0), 300, rho=0.97)
    check = diagnose(train, query)
    assert "few effective draws" in failed(check)


def state(draws, *, dimension=50, heat=1.0, noise=0.01, rise=0.01):
    """Statistics of a Gaussian posterior of ``dimension`` weights, 40 rows and gamma 10."""
    ones = np.ones((4, draws))
    distance = np.sqrt(2 / 10 * (heat * dimension / 2 - 40 * rise))
    stats = {
        "train_loss": (0.2 + rise) * ones,
        "distance": distance * ones,
        "gradient_noise": noise * ones,
        "diverging": np.zeros((4, draws), bool),
    }
    return {
        "stats": stats,
        "constant": {"train_loss_at_mode": ("train", np.full(40, 0.2))},
        "attrs": {"num_weights": dimension, "localization": 10.0, "inverse_temperature": 1.0},
    }


def test_the_state_of_a_good_run():
    train, query, _ = good()
    check = diagnose(train, query, **state(1000))
    assert check.attrs["verdict"] == "pass"
    assert float(check["loss_rise"]) == pytest.approx(0.01)
    assert float(check["energy_ratio"]) == pytest.approx(1)
    assert float(check["gradient_noise_share"]) == pytest.approx(0.01 / 1.01)
    assert float(check["distance_ratio"]) == pytest.approx(np.sqrt((25 - 0.4) / 25))
    assert "not measured" not in verdicts(check).values()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"heat": 3.0}, "the chain is hotter or colder"),
        ({"heat": 0.3}, "the chain is hotter or colder"),
        ({"noise": 2.0}, "minibatches heat the chain"),
        ({"rise": 1.2, "heat": 1.95}, "draws fit worse, or better"),
        ({"rise": -0.2}, "draws fit worse, or better"),
    ],
)
def test_a_state_that_is_wrong(change, reason):
    train, query, _ = good()
    check = diagnose(train, query, **state(1000, **change))
    assert check.attrs["verdict"] == "fail"
    assert reason in failed(check)


def test_a_lost_chain_is_told():
    train, query, _ = good()
    run = state(1000)
    run["stats"]["diverging"][1, 500:] = True
    train[1, 500:] = np.nan
    check = diagnose(train, query, **run)
    assert float(check["chains_lost"]) == 0.25
    assert check.attrs["verdict"] == "caution"
    assert "chains diverged" in failed(check)


def test_too_few_chains_left():
    train, query, _ = good()
    run = state(1000)
    run["stats"]["diverging"][1:, 500:] = True
    with pytest.raises(bif.BIFError, match=r"chains \[1, 2, 3\] diverged and 1 is left, too few"):
        diagnose(train, query, **run)


def test_unmarked_nan_is_no_pass():
    train, query, _ = good()
    train[2, 3, 1] = np.nan
    with pytest.raises(bif.BIFError, match="train_obs holds NaN or infinity in chains"):
        diagnose(train, query)


@pytest.mark.parametrize("rows", [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("draws", [4, 5, 40])
def test_small_runs_are_measured_as_far_as_they_go(rows, draws):
    train, query, _ = factors(np.random.default_rng(0), draws, train=rows[0], query=rows[1])
    check = diagnose(train, query)
    assert check.attrs["verdict"] in ("pass", "caution", "fail")
    assert all(isinstance(cell, str) for row in table(check) for cell in row)


def test_a_loss_that_does_not_move_is_not_judged():
    train, query, _ = good()
    train[..., 3] = -0.5
    check = diagnose(train, query)
    assert np.isnan(check["drift"][3])
    assert check.attrs["verdict"] == "pass"


def test_printing(capsys):
    train, query, _ = good(draws=60)
    check = bif.diagnose(run_of(train, query))
    printed = capsys.readouterr().out
    assert f"verdict: {check.attrs['verdict']}" in printed
    assert "R-hat of row" in printed


@pytest.mark.parametrize("scale", [0.5, 0.7])
def test_draws_needed_are_enough_and_not_many_more(scale):
    shares, fewer = [], []
    for seed in range(5):
        train, query, _ = factors(np.random.default_rng(seed), 300, scale=scale, rho=0.5)
        needed = float(diagnose(train, query)["draws_needed"])
        for draws, found in ((needed, shares), (needed / 3, fewer)):
            other = factors(np.random.default_rng(100 + seed), round(draws), scale=scale, rho=0.5)
            found.append(top_resolved(*other[:2]))
    assert np.median(shares) >= 0.8
    assert np.median(fewer) < 0.9


def rows_of_unlike_strength(seed, draws):
    """Rows that share a factor with strengths over several decades."""
    fixed, rng = np.random.default_rng(9), np.random.default_rng(seed)
    strength = fixed.choice([-0.01, 0.01], size=300) * fixed.lognormal(sigma=2.0, size=300)
    shared = ar1(rng, (4, draws, 1), 0.5)
    train, query = (ar1(rng, (4, draws, rows), 0.5) for rows in (300, 12))
    return train + strength * shared, query + shared


@pytest.mark.parametrize("draws", [150, 600])
def test_expected_agreement_is_that_of_another_run(draws):
    expected, found, naive = [], [], []
    for seed in range(6):
        runs = [rows_of_unlike_strength(seed + other, draws) for other in (0, 100)]
        one = stability(*runs[0])
        half = mean_known(one.halves)
        expected.append(one.expected)
        naive.append(2 * half / (1 + half))
        found.append(mean_known(agreement(*(scores_of(*run) for run in runs))))
    assert abs(np.mean(expected) - np.mean(found)) < 0.04
    # What the Spearman-Brown formula would say.
    assert np.mean(naive) > np.mean(found) + 0.04


def test_every_number_is_there_for_a_store(tmp_path):
    train, query, _ = good(draws=60)
    check = diagnose(train, query)
    check.drop_attrs().to_zarr(tmp_path / "check.zarr", consolidated=False, zarr_format=2)
    assert set(xr.open_zarr(tmp_path / "check.zarr", consolidated=False)) == set(check)
