"""One question over checkpoints: each answer that of its weights, aligned, resumed, left out."""

import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from ppl_bif import trajectory
from ppl_bif.schema import inference_data
from tests.truth import make_linear

STEPS = (0, 200)


def path():
    """A regression along gradient descent."""
    linear = make_linear(60, 3, beta=0.5, gamma=20.0)
    w, found = linear.mode - 1.0, {}
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            found[step] = linear._replace(mode=np.float32(w).astype(float))
        w = w - 0.002 * linear.x.T @ (linear.x @ w - linear.y)
    return found


def test_each_checkpoint_has_the_influence_of_its_weights(backend, tmp_path, monkeypatch):
    points = path()
    step = 0.5 / np.linalg.eigvalsh(points[0].precision()).max()
    kernels = {
        at: backend.SGLD(
            backend.linear(one.mode, localization=one.gamma, inverse_temperature=one.beta),
            step_size=step,
            batch_size=60,
            steps_per_draw=8,
        )
        for at, one in points.items()
    }
    x, y = points[0].data
    asked = {
        "train": (x, y),
        "query": (x[:8], y[:8]),
        "query_ids": list("abcdefgh"),
        "draws": 500,
        "warmup": 20,
        "store": tmp_path / "runs",
    }
    both = {"scores": bif.influence, "lambda": bif.learning_coefficient}
    with pytest.warns(UserWarning, match="negative"):
        found = bif.over_checkpoints(kernels, estimate=both, **asked)
    scores = found["scores"]
    assert scores["influence"].dims == ("checkpoint", "query", "train")
    assert scores["checkpoint"].values.tolist() == list(STEPS)
    for at, one in points.items():
        covariance = one.sgld_covariance(step, 60)
        truth = one.influence(one.x[:8], one.y[:8], covariance)
        off = (scores.sel(checkpoint=at)["influence"] - truth) / scores.sel(checkpoint=at)["mcse"]
        assert np.abs(off).max() < 5
        slope = (truth * scores.sel(checkpoint=at)["influence"]).sum() / (truth**2).sum()
        assert slope == pytest.approx(1, abs=0.05)
    assert found["lambda"]["learning_coefficient"].dims == ("checkpoint",)
    assert found["lambda"]["resolved"].values.tolist() == [False, True]
    assert scores.attrs["left_out"] == []

    # The same call finds its runs again.
    monkeypatch.setattr("ppl_bif.sampling.drive", lambda *_, **__: pytest.fail("sampled again"))
    xr.testing.assert_identical(bif.over_checkpoints(kernels, **asked), scores)


class Model:
    """A checkpoint, as far as it is looked at."""

    def __init__(self, level, localization=None, **settings):
        self.level, self.localization, self.more = level, localization, settings
        self.mode = {"w": np.zeros(3)}

    @property
    def settings(self):
        return {"localization": self.localization or "auto", **self.more}

    def resolve(self, localization):
        return Model(self.level, localization, **self.more)


@pytest.fixture
def seen(monkeypatch):
    """Runs that no sampler made; a level below 0 is one that cannot be sampled."""
    seen = []

    def sample(model, *, store=None, ids=None):
        seen.append((model.level, model.localization, store))
        if model.level == -2:
            raise bif.DivergenceError("every chain diverged")
        rng = np.random.default_rng(model.level + 10)
        loglik = rng.normal(size=(2, 60, 4)) * max(model.level, 1)
        dims = ("chain", "draw", "train")
        likelihood = {"train_obs": (dims, loglik), "query_obs": ((*dims[:2], "query"), loglik)}
        attrs = {"localization": model.localization or 7.0}
        if model.level == -1:
            attrs["refused"] = ["its chains still wander"]
        groups = {"log_likelihood": xr.Dataset(likelihood, {"train": ids or list("abcd")})}
        return inference_data(groups, attrs)

    monkeypatch.setattr(trajectory, "sample", sample)
    return seen


def test_the_localization_of_the_last_is_that_of_all(seen):
    bif.over_checkpoints({"early": Model(1), "late": Model(2)}, store="s3://bucket/runs")
    assert seen == [
        (2, None, "s3://bucket/runs/late.zarr"),
        (1, 7.0, "s3://bucket/runs/early.zarr"),
    ]


@pytest.mark.parametrize("level", [-1, -2])
def test_a_checkpoint_that_was_not_sampled_is_a_gap(seen, level):
    models = {0: Model(level), 1: Model(1), 2: Model(2)}
    with pytest.warns(UserWarning, match="checkpoint 0 is left out: .*(wander|diverged)"):
        found = bif.over_checkpoints(models)
    assert found["checkpoint"].values.tolist() == [0, 1, 2]
    assert bool(np.isnan(found["influence"].sel(checkpoint=0)).all())
    assert found["resolved"].dtype == bool
    assert not found["resolved"].sel(checkpoint=0).any()
    assert found.attrs["left_out"] == ["0"]
    assert np.isfinite(found["influence"].sel(checkpoint=[1, 2])).all()


def test_without_any_checkpoint_there_is_nothing(seen):
    with pytest.raises(bif.DivergenceError):
        bif.over_checkpoints({0: Model(1), 1: Model(-2)})
    with pytest.raises(bif.BIFError, match="no checkpoint could be sampled"):
        bif.over_checkpoints({0: Model(-2), 1: Model(-1)})
    with pytest.raises(ValueError, match="at least one checkpoint"):
        bif.over_checkpoints({})


def test_checkpoints_that_ask_other_questions_are_refused(seen):
    with pytest.raises(ValueError, match=r"weights only \(localization: 5\.0, 'auto'\)"):
        bif.over_checkpoints({0: Model(1, 5.0), 1: Model(2)})
    with pytest.raises(ValueError, match=r"inverse_temperature: None, 0\.5"):
        bif.over_checkpoints({0: Model(1), 1: Model(2, inverse_temperature=0.5)})
    with pytest.raises(ValueError, match="must not contain '/'"):
        bif.over_checkpoints({"a/b": Model(1)})
    assert seen == []


def test_whatever_gives_a_dataset_may_be_asked(seen):
    best = bif.over_checkpoints({0: Model(1), 1: Model(2)}, estimate=lambda run: bif.top(run, k=2))
    assert best["train"].dims == ("checkpoint", "query", "direction", "rank")
    assert best["train"].sel(checkpoint=0).dtype.kind == "U"
