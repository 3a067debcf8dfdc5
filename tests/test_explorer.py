"""The page on which one points at a token: what it shows are the numbers that xarray holds."""

import re
import shutil

import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from ppl_bif.explorer import write_explorer
from ppl_bif.schema import inference_data
from ppl_bif.text import encode
from tests.words import Words, run_of

WORDS = [
    "she",
    "<script>alert(1)</script>",
    'qu"ote',
    "\u05e9\u05dc\u05d5\u05dd",
    "\U0001f600",
    "elle",
]


def make(sides, draws=400):
    """Make a run in which equal words move together."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(2, draws, len(WORDS)))

    def values_of(rows):
        noise = rng.normal(size=(2, draws, *rows.targets.shape))
        return words[:, :, rows.targets.clip(0)] + noise

    tokenizer = Words(WORDS)
    rows = {side: encode(tokenizer, texts, length=16) for side, texts in sides.items()}
    return run_of(rows, values_of)


@pytest.fixture(scope="module")
def idata():
    rng = np.random.default_rng(1)
    train = {f"doc {i}": " ".join(rng.choice(WORDS, 12)) for i in range(12)}
    return make({"train": train, "query": {"</script><b>q": " ".join(WORDS)}})


@pytest.fixture(scope="module")
def scores(idata):
    return bif.influence(idata, by="token", shrink=None)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium here")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, idata, tmp_path):
    path = write_explorer(idata, tmp_path / "page.html", shrink=None)
    page = browser.new_page()
    page.failed = []
    page.on("pageerror", lambda error: page.failed.append(str(error)))
    page.on("console", lambda message: page.failed.append(message.text))
    page.on("dialog", lambda dialog: page.failed.append("a script of the data ran"))
    page.goto(path.as_uri())
    yield page
    assert not page.failed
    page.close()


def number(text):
    """Read a score with its error."""
    return tuple(float(part) for part in text.replace("\N{MINUS SIGN}", "-").split(" \u00b1 "))


def test_a_chosen_token_shows_its_scores(page, scores):
    page.locator("#query [data-unit]").nth(4).click()
    assert scores["query_token"].values[4] == "elle"
    of = scores.isel(query=4)
    best = np.argsort(-abs(of["influence"].values))
    links = page.locator("#list a")
    assert links.count() == 40
    for place in (0, 1, 39):
        value, error = number(links.nth(place).locator(".num").inner_text())
        unit = int(links.nth(place).get_attribute("data-target"))
        assert value == pytest.approx(float(of["influence"][unit]), abs=0.006)
        assert error == pytest.approx(float(of["mcse"][unit]), rel=0.12)
        assert abs(value) == pytest.approx(abs(float(of["influence"][best[place]])), abs=0.006)
    assert links.first.locator(".what").inner_text() == "elle"


def test_colours_have_the_sign_and_the_strength_of_scores(page, scores):
    page.locator("#query [data-unit]").nth(0).click()
    value = scores["influence"].values[0]
    full = np.sort(abs(value))[int(0.995 * (len(value) - 1))]
    resolved = bif.top(scores.isel(query=[0]), k=len(value))
    found = dict(
        zip(resolved["train"].values[0, 0], resolved["resolved"].values[0, 0], strict=True)
    )
    for unit in range(0, len(value), 17):
        # Tokens are laid out as their row comes into view.
        row = page.locator("#train article").nth(unit // 11)
        row.scroll_into_view_if_needed()
        box = row.locator(f'[data-unit="{unit}"]')
        strength = box.evaluate("node => Number(node.style.getPropertyValue('--strength'))")
        names = (box.get_attribute("class") or "").split()
        assert strength == pytest.approx(min(1, abs(value[unit]) / full), abs=2e-3)
        assert ("lowers" in names) == (value[unit] < 0)
        if value[unit] > 0:
            assert ("unresolved" not in names) == found[scores["train"].values[unit]]


def test_keys_filters_and_links(page, scores):
    first = page.locator("#query [data-unit]").first
    first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#query .picked").get_attribute("data-unit") == "1"
    assert 'qu"ote' in page.locator("#chosen").inner_text()
    page.locator("#sign").select_option("1")
    values = [number(text)[0] for text in page.locator("#list .num").all_inner_texts()]
    assert min(values) > 0
    assert values == sorted(values, reverse=True)
    page.locator("#only").check()
    assert page.locator("#list .faint").count() == 0
    page.locator("#find").fill("doc 7")
    wheres = page.locator("#list .where").all_inner_texts()
    assert {where.split(",")[0] for where in wheres} == {"doc 7"}
    page.locator("#list a").first.click()
    target = page.locator("#list a").first.get_attribute("data-target")
    assert page.evaluate("document.activeElement.dataset.unit") == target
    page.keyboard.press("Enter")
    assert page.locator("#list-name").inner_text().lower() == "strongest effects"


def test_what_texts_hold_is_shown_and_not_run(page):
    assert page.locator("#query h3").inner_text() == "</script><b>q"
    units = page.locator("#query [data-unit]").all_inner_texts()
    assert units == WORDS[1:]
    assert page.evaluate("document.querySelectorAll('#query b').length") == 0


def test_pictures_are_shown_in_place_of_text(browser, tmp_path):
    rng = np.random.default_rng(0)
    values = {
        f"{s}_obs": (("chain", "draw", s), rng.normal(size=(2, 50, 6))) for s in ("train", "query")
    }
    pictures = {f"{s}_image": ((s, "y", "x"), rng.random((6, 4, 4))) for s in ("train", "query")}
    run = inference_data(
        {"log_likelihood": xr.Dataset(values), "constant_data": xr.Dataset(pictures)}, {}
    )
    page = browser.new_page()
    page.goto(write_explorer(run, tmp_path / "page.html").as_uri())
    page.locator("#query [data-unit]").nth(2).click()
    assert page.locator("#train img").count() == 6
    assert page.locator("#list a").count() == 6
    page.close()


def test_one_hundred_thousand_tokens_do_not_freeze_the_page(browser, tmp_path):
    rng = np.random.default_rng(2)
    train = {f"doc {i}": " ".join(rng.choice(WORDS, 17)) for i in range(6250)}
    run = make({"train": train, "query": {"q": " ".join(WORDS[:3])}}, draws=8)
    page = browser.new_page()
    page.goto(write_explorer(run, tmp_path / "page.html", shrink=None).as_uri())
    # No token is laid out before it comes into view.
    assert page.locator("#train [data-unit]").count() < 5000
    page.locator("#query [data-unit]").first.click()
    assert page.locator("#list a").count() == 40
    page.locator("#list a").nth(39).click()
    assert page.locator("#train [data-unit]:focus").count() == 1
    page.close()


def test_the_page_holds_as_many_queries_as_fit(idata, tmp_path):
    with pytest.raises(ValueError, match="more than max_pairs=100"):
        write_explorer(idata, tmp_path / "page.html", max_pairs=100)
    page = write_explorer(idata, tmp_path / "page.html").read_text("utf-8")
    assert not re.search(r"https?://", page)
    with pytest.raises(ValueError, match="is a folder"):
        write_explorer(idata, tmp_path)
