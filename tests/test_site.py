"""What the build of the site refuses: things from another host, and links that lead nowhere."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")

SCRIPT = Path(__file__).parent.parent / "docs" / "site_check.py"


@pytest.fixture(scope="module")
def problems():
    spec = importlib.util.spec_from_file_location("site_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.problems


WHOLE = {
    "index.html": '<a href="other/#place">x</a><a href="https://example.org">y</a>'
    '<link rel="stylesheet" href="a.css"><link rel="canonical" href="https://example.org/">',
    "other/index.html": '<h2 id="place">x</h2><img src="../b%20c.png"><a href="/">home</a>'
    '<a href="#">top</a><script src="../a.js"></script><img src="data:image/png;base64,AA">',
    "a.css": '@font-face{src:url(b%20c.png)} x{background:url("data:image/png;base64,AA")}',
    "a.js": "",
    "b c.png": "",
}


def build(folder, **changed):
    for name, text in (WHOLE | changed).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_whole_site_passes(problems, tmp_path):
    assert problems(build(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('<a href="gone/">x</a>', "link to gone/, which is not there"),
        ('<a href="other/#gone">x</a>', "link to other/#gone, where there is no such place"),
        ('<a href="#gone">x</a>', "link to #gone, where there is no such place"),
        ('<img src="gone.png">', "gone.png is not there"),
        ('<img srcset="b%20c.png 1x, gone.png 2x">', "gone.png is not there"),
        ('<script src="https://e.org/a.js"></script>', "asks another host for https://e.org/a.js"),
        ('<img src="//e.org/a.png">', "asks another host for //e.org/a.png"),
        ('<link rel="preload" href="https://e.org/a">', "asks another host for https://e.org/a"),
        ("<style>@import 'https://e.org/a.css';</style>", "asks another host for"),
        ('<p style="background: url(https://e.org/a.png)">', "asks another host for"),
    ],
)
def test_a_page_that_is_not_whole_is_named(problems, tmp_path, text, told):
    found = problems(build(tmp_path, **{"index.html": text}))
    assert len(found) == 1
    assert found[0].startswith("index.html: ")
    assert told in found[0]


def test_style_sheets_are_read(problems, tmp_path):
    found = problems(build(tmp_path, **{"a.css": "x{src:url(gone.woff2),url(https://e.org/f)}"}))
    assert found == [
        "a.css: gone.woff2 is not there",
        "a.css: asks another host for https://e.org/f",
    ]
