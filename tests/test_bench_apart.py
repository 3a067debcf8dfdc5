"""What is told of how far runs lie apart is true where their errors are known."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.pyro


def test_normal_errors_are_told_as_such(monkeypatch):
    from benchmarks.lds import apart

    monkeypatch.setattr(apart, "lds", lambda *_, **__: {"mean": 0.5})
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 300))
    error = 0.3 * np.ones_like(truth)
    runs = [apart.Seen(truth + error * rng.normal(size=truth.shape), error) for _ in range(3)]
    plain, shrunk = (
        apart.judged(apart.ESTIMATORS[name], runs, 0, SimpleNamespace(truth=None))
        for name in ("first order", "shrunk in scale")
    )
    for found in (plain, shrunk):
        assert found["z"] == pytest.approx(1, abs=0.03)
    assert plain["off"] == pytest.approx(0.3, rel=0.03)
    # Of a normal law, the posterior mean is off by sd / sqrt(1 + sd^2).
    assert shrunk["off"] == pytest.approx(0.3 / np.sqrt(1.09), rel=0.03)
    assert plain["resolved"] > 0.3
    assert plain["other_sign"] < 0.015
