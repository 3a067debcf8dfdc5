"""Fails the build where the site asks another host for something, or a link of it leads nowhere.

MkDocs checks the links of Markdown; this reads what was built: tutorials, docstrings, raw HTML,
style sheets.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

LINKS = {"a", "area"}
# Of <link>, what a browser fetches by itself; others, such as canonical, only name an address.
FETCHED = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "manifest"}
CSS_URL = re.compile(r"""(?:url\(|@import\s+)\s*["']?([^"')\s;]+)""")


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site with something from another host or a broken link."""
    found = problems(Path(config.site_dir))
    if found:
        raise PluginError("the site is not whole:\n" + "\n".join(found))


class Page(HTMLParser):
    """What a page asks for, where it links to, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what is of interest in a tag."""
        of = {name: value or "" for name, value in attrs}
        self.anchors |= {of[name] for name in ("id", "name") if name in of}
        if tag in LINKS:
            self.links += [of["href"]] if "href" in of else []
        elif tag != "link" or FETCHED & set(of.get("rel", "").split()):
            self.fetched += [of[name] for name in ("src", "href", "data", "poster") if name in of]
            self.fetched += [part.split()[0] for part in of.get("srcset", "").split(",") if part]
        self.fetched += CSS_URL.findall(of.get("style", ""))
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        """Collect what a style sheet within the page asks for."""
        if self._style:
            self.fetched += CSS_URL.findall(data)


def problems(site: Path) -> list[str]:
    """List what is wrong with a built site, a line each."""
    site = site.resolve()
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    found: list[str] = []
    for path in pages:
        found += [f"{path.relative_to(site)}: {text}" for text in _of_page(site, path, pages)]
    for path in sorted(site.rglob("*.css")):
        for address in CSS_URL.findall(path.read_text("utf-8")):
            text = _fetch(site, path, address)
            found += [f"{path.relative_to(site)}: {text}"] if text else []
    return found


def _of_page(site: Path, path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    for address in pages[path].fetched:
        if text := _fetch(site, path, address):
            yield text
    for address in pages[path].links:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = _target(site, path, parts.path)
        if not target.is_file():
            yield f"link to {address}, which is not there"
        elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield f"link to {address}, where there is no such place"


def _fetch(site: Path, path: Path, address: str) -> str | None:
    """Say what is wrong with something that a browser fetches by itself."""
    parts = urlsplit(address)
    if parts.scheme == "data" or (not parts.path and not parts.netloc):
        return None
    if parts.scheme or parts.netloc:
        return f"asks another host for {address}"
    return None if _target(site, path, parts.path).is_file() else f"{address} is not there"


def _target(site: Path, path: Path, address: str) -> Path:
    """Return the file that an address within the site stands for."""
    if not address:
        return path
    base = site if address.startswith("/") else path.parent
    target = (base / unquote(address).lstrip("/")).resolve()
    return target / "index.html" if target.is_dir() else target
