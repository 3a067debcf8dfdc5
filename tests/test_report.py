"""The report stands alone, escapes what data brings, and shows every query with its errors."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from ppl_bif.errors import BIFError
from ppl_bif.plots.captions import score_lines
from ppl_bif.ranking import top
from ppl_bif.report import write_report
from ppl_bif.report.advice import next_steps, settings
from ppl_bif.schema import group, inference_data
from ppl_bif.scores import influence
from tests.synthetic_run import QUERY_IDS, make_run

pytest.importorskip("matplotlib")


class Page(HTMLParser):
    """Tags, addresses and visible text of a page; raises on tags that do not match."""

    VOID = frozenset({"meta", "img", "source", "line", "circle"})

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.addresses, self.texts, self.css = [], [], [], [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "srcset", "href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.css += data
        elif data.strip():
            self.texts.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def run():
    return make_run()


@pytest.fixture(scope="module", params=[True, False], ids=["pictures", "rows"])
def written(request, tmp_path_factory):
    run = make_run(pictures=request.param, diverged=not request.param)
    path = write_report(run, tmp_path_factory.mktemp("report") / "new" / "report.html")
    return run, path.read_text(encoding="utf-8")


def test_it_loads_nothing_and_runs_nothing(written):
    page = Page(written[1])
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not re.search(r"https?:|//cdn|@import|url\(", re.sub(r"base64,[\w+/=]+", "", written[1]))
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_hostile_ids_are_escaped_and_every_query_is_there(written):
    page = Page(written[1])
    assert "<script>" not in written[1]
    assert set(QUERY_IDS) <= set(page.texts)


def test_each_score_stands_with_its_error(written):
    run, page = written
    best, text = top(influence(run), 5), " ".join(Page(page).texts)
    for query in range(best.sizes["query"]):
        for cell in (best.isel(query=query, direction=d, rank=r) for d in (0, 1) for r in range(5)):
            score = " ".join(score_lines(float(cell["influence"]), float(cell["mcse"])))
            assert re.search(rf"\b{cell['train'].item()} digit \d {re.escape(score)}", text)


def test_unresolved_rows_are_counted_and_marked(written):
    run, page = written
    resolved = top(influence(run), 5)["resolved"]
    assert 0 < resolved.sum() < resolved.size
    assert page.count('class="tag">unresolved<') == int((~resolved).sum())
    first = int(resolved.isel(query=0).sum())
    assert f"{first} of 10 resolved" in Page(page).texts


def test_it_tells_verdict_reasons_sign_settings_and_advice(written):
    text = " ".join(Page(written[1]).texts)
    for words in (
        "fail",
        "ESS of row losses",
        "positive where the row raises it",
        "false discovery rate of 5%",
        "step size 0.0001",
        "num weights 4,810",
        "What to do next",
    ):
        assert words in text


def test_diverged_chains_are_named(tmp_path):
    page = write_report(make_run(diverged=True), tmp_path / "r.html").read_text(encoding="utf-8")
    assert "left out of every score: chain 3" in page


def test_light_and_dark_and_narrow_screens_are_provided_for(written):
    page = Page(written[1])
    assert "prefers-color-scheme: dark" in page.css
    assert "max-width: 520px" in page.css
    assert page.tags.count("source") == 4


def test_queries_and_k_choose_what_is_shown(run, tmp_path):
    path = write_report(run, tmp_path / "r.html", queries=["q5"], k=2)
    page = Page(path.read_text(encoding="utf-8"))
    assert "q5" in page.texts
    assert "q0" not in page.texts
    assert "of 4 resolved" in " ".join(page.texts)
    assert "1 of 6 queries are shown" in " ".join(page.texts)


def test_equal_runs_give_equal_pages(run, tmp_path):
    pages = [write_report(run, tmp_path / name, k=1).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_integer_ids_and_no_constant_data(tmp_path):
    likelihood = group(make_run(), "log_likelihood").assign_coords(query=np.arange(6))
    bare = inference_data({"log_likelihood": likelihood}, {})
    page = write_report(bare, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "bif.top(scores.sel(query=[0])" in page


def test_bad_input_writes_nothing(run, tmp_path):
    out = tmp_path / "r.html"
    with pytest.raises(ValueError, match="no query named nobody"):
        write_report(run, out, queries=["nobody"])
    with pytest.raises(ValueError, match="k must be at least 1"):
        write_report(run, out, k=0)
    with pytest.raises(ValueError, match="is a folder"):
        write_report(run, tmp_path)
    with pytest.raises(ValueError, match="the run has one"):
        write_report(make_run(chains=1), out)
    with pytest.raises(BIFError, match="diverged"):
        write_report(make_run(chains=2, diverged=True), out)
    assert not out.exists()


def test_advice_follows_the_verdict():
    best = xr.Dataset(coords={"query": ["q"]})
    needed = xr.Dataset({"draws_needed": 1801.0}, attrs={"verdict": "caution"})
    titles = [step.title for step in next_steps(needed, best, draws=1000)]
    assert titles[:2] == ["Strengthen the run", "Sample longer"]
    assert "draws=1900" in next_steps(needed, best, draws=1000)[1].code
    done = xr.Dataset({"draws_needed": np.inf}, attrs={"verdict": "pass"})
    assert "Sample longer" not in [step.title for step in next_steps(done, best, draws=1000)]


def test_settings_are_readable():
    attrs = {"step_size": 1e-5, "sampling_time": 12.34, "seed": 1234, "a_b": [1, 2], "completed": 1}
    assert settings(attrs) == [
        ("step size", "1e-05"),
        ("sampling time", "12.3 s"),
        ("seed", "1234"),
        ("a b", "1, 2"),
    ]
