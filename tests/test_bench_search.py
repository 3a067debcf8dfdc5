"""The benchmark of searching a run on disk, tried at small size."""

import json
import sys

import pytest

pytestmark = [pytest.mark.pyro, pytest.mark.numpyro, pytest.mark.slow]


def test_the_command_measures_and_keeps_lines(tmp_path, monkeypatch, capsys):
    from benchmarks.speed import search

    kept = tmp_path / "lines.jsonl"
    sizes = ["--rows", "20000", "--queries", "50", "--draws", "40", "--turns", "1"]
    where = ["--folder", str(tmp_path), "--results", str(kept)]
    monkeypatch.setattr(sys, "argv", ["search", *sizes, *where])
    search.main()
    blas, ours = map(json.loads, kept.read_text().splitlines())
    assert (blas["subject"], ours["subject"]) == ("blas", "search")
    assert ours["case"] == "search_20000x50x160"
    assert ours["cpu_seconds_over_blas"][0] > 1
    assert 0 < ours["peak_gb"][0] < 2
    assert list(tmp_path.iterdir()) == [kept]
