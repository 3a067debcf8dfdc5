"""Pictures of every page of the built site, as a phone and a desktop show it, for looking at.

``python docs/pictures.py SITE FOLDER [PAGE ...]`` takes them with headless Chromium. It fails where
a page scrolls sideways on a phone, asks another host for something, has a script that fails or a
formula that KaTeX cannot set.
"""

import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

WIDTHS = {"phone": 390, "desktop": 1280}
HEIGHT = 900
CHROMIUM = ("chromium", "google-chrome", "chrome")


def main(site: Path, folder: Path, names: list[str]) -> int:
    """Take the pictures, print what is wrong with the pages, and say how much that is."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = names or [str(page.parent.relative_to(site)) for page in site.rglob("index.html")]
    found: list[str] = []
    with served(site) as address, browser() as chromium:
        for page in sorted(pages):
            for device, width in WIDTHS.items():
                picture = folder / f"{page.replace('/', '.').strip('.') or 'home'}-{device}.png"
                problems = look(chromium, address, page, width, picture)
                found += [f"{page} on a {device}: {problem}" for problem in problems]
    print("\n".join(found) or f"{len(pages)} pages are well; pictures in {folder}")
    return len(found)


def look(browser: Browser, address: str, name: str, width: int, picture: Path) -> list[str]:
    """Open a page, keep a picture of it, and return what is wrong with it."""
    problems: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": HEIGHT}, reduced_motion="reduce")
    page.on("pageerror", lambda error: problems.append(f"script fails: {error}"))

    def asked(request: Any) -> None:
        if not request.url.startswith((address, "data:")):
            problems.append(f"asks for {request.url}")

    page.on("request", asked)
    page.goto(f"{address}/{name}/")
    page.evaluate("document.fonts.ready")
    wide = page.evaluate("document.documentElement.scrollWidth")
    if wide > width:
        problems.append(f"is {wide} pixels wide")
    unset = page.locator(".katex-error").all_inner_texts()
    problems += [f"formula cannot be set: {text}" for text in unset]
    # Pictures further down are fetched as they come into view.
    page.evaluate(
        "Promise.all([...document.images].map("
        "image => { image.loading = 'eager'; return image.decode().catch(() => {}); }))"
    )
    page.screenshot(path=picture, full_page=True)
    page.close()
    return problems


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a folder at an address of this machine."""
    handler = partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and keeps silent."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        raise SystemExit("there is no Chromium: install it, by 'apt-get install chromium' or so")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    sys.exit(bool(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])))
