"""The command line: exit statuses, errors of one line, and exports that lose nothing."""

import csv
import io
import json
import sys
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

import ppl_bif
from ppl_bif.cli import app
from ppl_bif.ranking import top
from ppl_bif.scores import influence
from ppl_bif.store import open_store
from tests.synthetic_run import QUERY_IDS, make_run, store_run


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    return store_run(make_run(), tmp_path_factory.mktemp("runs") / "run.zarr")


@pytest.fixture(scope="module")
def best(run_path):
    return top(influence(open_store(run_path)), 5)


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "80"})


def test_version_and_help():
    assert call("--version").stdout.strip() == f"ppl-bif {ppl_bif.__version__}"
    text = call("--help").stdout
    assert all(command in text for command in ("demo", "diagnose", "top", "report"))


def records(best):
    for at, query in enumerate(best["query"].values):
        for direction in ("raises", "lowers"):
            for rank in range(best.sizes["rank"]):
                cell = best.isel(query=at, rank=rank).sel(direction=direction)
                yield str(query), direction, rank + 1, cell


def test_csv_round_trip(run_path, best):
    result = call("top", run_path, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert result.exit_code == 0
    for row, (query, direction, rank, cell) in zip(rows, records(best), strict=True):
        assert (row["query"], row["direction"], row["rank"]) == (query, direction, str(rank))
        assert row["train"] == str(cell["train"].item())
        assert float(row["influence"]) == cell["influence"].item()
        assert float(row["mcse"]) == cell["mcse"].item()
        assert row["resolved"] == str(cell["resolved"].item())


def test_json_round_trip(run_path, best):
    content = json.loads(call("top", run_path, "--format", "json").stdout)
    assert content["settings"]["fdr"] == 0.05
    assert content["settings"]["chains_excluded"] == []
    for row, (query, direction, rank, cell) in zip(content["rows"], records(best), strict=True):
        expected = {name: cell[name].item() for name in ("train", "influence", "mcse", "resolved")}
        assert row == {"query": query, "direction": direction, "rank": rank, **expected}


def test_table_shows_ids_labels_errors_and_what_is_unresolved(run_path, best):
    result = call("top", run_path, "-k", 3, "--query", QUERY_IDS[4], "--query", QUERY_IDS[2])
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith("query ")] == [
        f"query {QUERY_IDS[4]} · digit 6",
        f"query {QUERY_IDS[2]} · digit 7",
    ]
    assert result.stdout.count("±") == 2 * (2 * 3 + 2)
    shown = best.isel(rank=slice(3)).sel(query=[QUERY_IDS[4], QUERY_IDS[2]])
    assert result.stdout.count(" ?") == int((~shown["resolved"]).sum())
    assert "? unresolved: not told apart from 0" in result.stdout
    assert all(f" {i} · digit " in result.stdout for i in shown["train"].values.ravel())
    assert "2 of 6 queries" in result.stdout


def test_diagnosis_that_fails_exits_with_3(run_path):
    result = call("diagnose", run_path)
    assert result.exit_code == 3
    assert "verdict: fail" in result.stdout
    assert "ESS of row losses" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(("verdict", "status"), [("pass", 0), ("caution", 0), ("fail", 3)])
def test_status_of_each_verdict(run_path, monkeypatch, verdict, status):
    check = ppl_bif.diagnose(open_store(run_path), verbose=False).assign_attrs(verdict=verdict)
    monkeypatch.setattr("ppl_bif.diagnostics.diagnose", lambda *_, **__: check)
    assert call("diagnose", run_path).exit_code == status


def test_report_is_written_beside_the_run_or_where_asked(run_path, tmp_path):
    pytest.importorskip("matplotlib")
    assert call("report", run_path).exit_code == 0
    assert run_path.with_suffix(".html").exists()
    out = tmp_path / "deep" / "page.html"
    result = call("report", run_path, "--out", out, "--query", "q1", "-k", 2)
    assert result.exit_code == 0
    assert str(out) in result.stdout.replace("\n", "")
    assert "of 4 resolved" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("top", "no/such/run"), "no run at"),
        (("diagnose", "no/such/run"), "no run at"),
        (("report", "no/such/run"), "no run at"),
        (("top", "RUN", "--query", "nobody"), "no query named nobody"),
        (("top", "RUN", "-k", "1000"), "at most the 40 training rows"),
        (("top", "RUN", "--fdr", "2"), "fdr must lie between 0 and 1"),
        (("report", "RUN", "--out", "FOLDER"), "is a folder"),
        (("report", "RUN", "--html", "page.html", "-k", "5"), "leave -k, --query and --out out"),
        (("report", "RUN", "--html", "page.html", "-q", "q0"), "leave -k, --query and --out out"),
        (("report", "RUN", "--html", "page.html", "-o", "page.html"), "or --html"),
    ],
)
def test_errors_are_one_line_on_stderr(run_path, tmp_path, words, message):
    places = {"RUN": run_path, "FOLDER": tmp_path}
    result = call(*(places.get(word, word) for word in words))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_a_wrong_command_line_exits_with_2(run_path):
    assert call("top", run_path, "--format", "xml").exit_code == 2
    assert call("top").exit_code == 2


def test_demo_hands_on_its_options(monkeypatch, tmp_path):
    seen = {}
    demo = ModuleType("ppl_bif_models.demo")
    demo.run = lambda **options: seen.update(options)
    monkeypatch.setitem(sys.modules, "ppl_bif_models.demo", demo)
    out = tmp_path / "demo"
    assert call("demo", "--backend", "pyro", "--draws", 50, "--out", out).exit_code == 0
    assert seen == {"backend": "pyro", "draws": 50, "out": out}


def test_demo_says_what_is_missing(monkeypatch):
    demo = ModuleType("ppl_bif_models.demo")

    def fail(**_):
        raise ImportError("the demo needs PyTorch:\n  pip install 'ppl_bif[pyro]'")

    demo.run = fail
    monkeypatch.setitem(sys.modules, "ppl_bif_models.demo", demo)
    result = call("demo")
    assert result.exit_code == 1
    assert result.stderr == "error: the demo needs PyTorch: pip install 'ppl_bif[pyro]'\n"


def test_scores_that_are_not_finite_are_null_in_json(run_path, best, monkeypatch):
    broken = best.assign(mcse=best["mcse"] * np.nan)
    monkeypatch.setattr("ppl_bif.ranking.top", lambda *_, **__: broken)
    rows = json.loads(call("top", run_path, "--format", "json").stdout)["rows"]
    assert {row["mcse"] for row in rows} == {None}
