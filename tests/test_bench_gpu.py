"""The GPU benchmark, tried on a CPU at small size: that every kind of row runs from end to end."""

import json
import sys

import pytest

pytestmark = [
    pytest.mark.pyro,
    # Random weights are far from the mode of their posterior.
    pytest.mark.filterwarnings("ignore:these draws will not be scored"),
]

PUBLISHED = {
    "gpt-124m": 124.4e6,
    "pythia-14m": 14.07e6,
    "pythia-70m": 70.4e6,
    "pythia-160m": 162.3e6,
    "pythia-410m": 405.3e6,
    "pythia-1b": 1.012e9,
    "pythia-1.4b": 1.415e9,
    "pythia-2.8b": 2.775e9,
}
KINDS = [
    "resnet9",
    "gpt-124m",
    "pythia-2.8b",
    pytest.param("gpt-124m-jax", marks=[pytest.mark.numpyro, pytest.mark.slow]),
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_have_as_many_weights_as_published(name):
    import torch

    from benchmarks.speed.language import SHAPES, language_model

    with torch.device("meta"):
        network = language_model(SHAPES[name])
    weights = sum(w.numel() for w in network.parameters())
    assert weights == pytest.approx(PUBLISHED[name], rel=0.02)


@pytest.mark.parametrize("row", KINDS)
def test_rows_run(row):
    from benchmarks.speed.gpu_measure import measured

    line = measured(row, device="cpu", small=True, turns=1)
    for name in ("score_share", "step_share", "draw_over_bare"):
        assert line[name][0] > 0
    assert line["peak_gb"] is None
    assert line["device"] == "cpu"


def test_gpt_is_the_same_in_both_frameworks():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    import numpy as np

    from benchmarks.speed import gpu_jax, gpu_rows

    row = gpu_rows.as_small(gpu_rows.ROWS["gpt-124m-jax"])
    ids = gpu_rows.data(row)[0][0]
    apply, weights = gpu_jax._gpt(row)
    with torch.no_grad():
        expected = gpu_rows.torch_network(row)(torch.as_tensor(ids)).numpy()
    found = apply(jax.tree.map(jax.numpy.asarray, weights), ids)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-4)


def test_the_command_keeps_lines_and_names_rows_that_failed(tmp_path, monkeypatch, capsys):
    from benchmarks.speed import gpu

    line = {"row": "resnet9", "weights": 10, "peak_gb": 1.5}
    shares = {n: [1.0, 0.9, 1.1] for n in ("score_share", "step_share", "draw_over_bare")}

    def in_process(row, device, *, small, turns):
        return {**line, **shares} if row == "resnet9" else None

    monkeypatch.setattr(gpu, "in_process", in_process)
    kept = tmp_path / "gpu.jsonl"
    options = ["--device", "cpu", "--small", "--rows", "resnet9", "gpt-124m"]
    monkeypatch.setattr(sys, "argv", ["gpu", *options, "--results", str(kept)])
    assert gpu.main() == 1
    assert [json.loads(text)["row"] for text in kept.read_text().splitlines()] == ["resnet9"]
    assert "| resnet9 | 10 | 1.00 (0.90 ... 1.10) |" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    import torch

    from benchmarks.speed import gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu.main() == 1
    assert "sees no GPU" in capsys.readouterr().out
