"""The attribution table takes what refined has kept, as it is, and the docs have it as printed."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("torch")

pytestmark = pytest.mark.pyro


def test_kept_scores_stand_in_the_table(tmp_path, monkeypatch):
    from benchmarks.lds import peers, refined, tasks, versus
    from ppl_bif.evaluation import lds

    nothing = tmp_path / "nothing"
    monkeypatch.setattr(refined, "SCORES", tmp_path)
    monkeypatch.setattr(versus, "RUNS", nothing)
    monkeypatch.setattr(peers, "SCORES", nothing)

    task, rng = tasks.load("digits_mlp"), np.random.default_rng(0)
    shape = len(task.query[1]), len(task.train[1])
    whole, part = rng.normal(size=(2, *shape)).astype(np.float32)
    found = xr.Dataset({"influence": (("query", "train"), whole)})
    found["first_order"] = ("train", "query"), part.T
    about = {"settings": {}, "chains": 4, "draws": 6, "device": "cpu"}
    cost = {"seconds_to_sample": 1.0, "seconds_to_refine": 2.0}
    refined.keep("weak", {"task": "digits_mlp", "backend": "pyro", **about, **cost}, found)

    first, second = versus.judged("digits_mlp", ["default"])
    assert (first["method"], second["method"]) == (
        "BIF, pyro, weak",
        "BIF, pyro, weak, first order",
    )
    for line, scores in ((first, whole), (second, part)):
        assert line["lds"][0] == pytest.approx(float(lds(scores, task.truth)["mean"]), abs=1e-4)
        assert line["seconds"] == 3.0
    assert second["less"][0] == pytest.approx(first["lds"][0] - second["lds"][0], abs=2e-4)


def test_scores_are_paired_with_the_best_ekfac_that_lies_there(tmp_path, monkeypatch):
    from benchmarks.lds import peers, refined, tasks
    from benchmarks.lds.damped import some_queries
    from ppl_bif.evaluation import compare

    monkeypatch.setattr(peers, "SCORES", tmp_path)
    task, rng = some_queries(tasks.load("digits_mlp"), 20), np.random.default_rng(0)
    default, best, own = rng.normal(size=(3, len(task.query[1]), len(task.train[1])))
    scores = {"refined": xr.DataArray(own.T, dims=("train", "query"))}
    assert refined.less_ekfac(scores, task) == {}
    for role, other in (("default", default), ("best", best)):
        np.save(tmp_path / f"digits_mlp-ekfac-{role}.npy", other)
        found = compare({"own": own, "theirs": other}, task.truth)
        expected = found["difference"].sel(attributor="own", other="theirs")
        less = refined.less_ekfac(scores, task)["refined"]
        assert less[0] == pytest.approx(float(expected), abs=1e-4)
        assert less[1] < less[0] < less[2]


def test_what_was_not_made_anew_is_kept_unpaired():
    from benchmarks.lds.versus import with_older

    def line(task, method, lds):
        return {"task": task, "method": method, "lds": [lds, 0.0, 1.0], "less": [0.1, 0.0, 0.2]}

    older = [line("digits_mlp", "BIF, pyro", 0.6), line("digits_mlp", "IF-CG", 0.5)]
    other = line("verses_gpt", "BIF, pyro", 0.2)
    made = [line("digits_mlp", "BIF, pyro", 0.7), line("digits_mlp", "GradDot", 0.3)]
    found = with_older([other, *older], made)
    assert found == [made[0], older[1] | {"less": None}, made[1], other]


def test_the_docs_have_the_table_as_it_is_printed():
    from benchmarks.lds.versus import results, shown

    page = (Path(__file__).parents[1] / "docs" / "quality.md").read_text()
    for line in results():
        # The GPT has a table of its own.
        assert line["task"] == "verses_gpt" or shown(line) in page
