"""Runs the tutorials while the site is built, and fills in the pages that quote the program.

A tutorial is a percent script, ``docs/tutorials/NAME.py``. Its page, code and output and pictures,
exists only in the built site; what lies in ``docs/data`` it finds in ``data``. Runs are kept in
``.cache`` under a hash of the script and of all sources and data it could depend on; a cell that
fails, fails the build. With ``TUTORIALS=unrun`` none is run: pages show the last run there is, or
code alone. That is for looking at pages while writing them.
"""

import base64
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "docs" / "data"
CACHE = ROOT / ".cache" / "tutorials"
CELL_SECONDS = 900
# Tutorials that run at once, each in a process of its own.
AT_ONCE = 2

# Pictures close with their cell; a Figure that was never pyplot's is drawn as well.
SETUP = """
%matplotlib inline
%config InlineBackend.print_figure_kwargs = {"dpi": 110}
import warnings
warnings.filterwarnings("ignore", 'install "ipywidgets"')
"""
# Plain tables and no colours: what the page shows is text.
QUIET = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "92", "TERMINAL_WIDTH": "92"}

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ROLE = re.compile(r":(?:func|class|mod):(?=<code>)")
# Where the home page quotes a tutorial.
MARKS = re.compile(r"^# --8<-- .*\n?", re.MULTILINE)
CLI_HELP = re.compile(r"^<!-- ppl-bif (.*?) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page, and its pictures, for every tutorial."""
    scripts = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(tutorial, scripts))
    for script, (page, pictures) in zip(scripts, made, strict=True):
        files.append(File.generated(config, f"tutorials/{script.stem}.md", content=page))
        for name, png in pictures.items():
            uri = f"tutorials/{script.stem}_files/{name}"
            files.append(File.generated(config, uri, content=png))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the program's own help where a page asks for it with ``<!-- ppl-bif COMMAND -->``."""
    return CLI_HELP.sub(lambda found: fence(cli_help(found[1].split())), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Show what a docstring refers to as code, without the role that editors know it by."""
    return ROLE.sub("", html)


def tutorial(script: Path) -> tuple[str, dict[str, bytes]]:
    """Return the page and the pictures of a tutorial, from the cache where nothing changed."""
    kept = CACHE / f"{script.stem}-{digest(script)}.json"
    if not kept.exists() and os.environ.get("TUTORIALS") == "unrun":
        former = sorted(CACHE.glob(f"{script.stem}-*.json"), key=lambda path: path.stat().st_mtime)
        if not former:
            return render(jupytext.read(script, fmt="py:percent"), script.stem)
        kept = former[-1]
    elif not kept.exists():
        page, pictures = render(run(script), script.stem)
        content = {"page": page, "pictures": {k: text(v) for k, v in pictures.items()}}
        write(kept, json.dumps(content))
    content = json.loads(kept.read_text("utf-8"))
    return content["page"], {k: base64.b64decode(v) for k, v in content["pictures"].items()}


def digest(script: Path) -> str:
    """Hash what the output of a tutorial may depend on."""
    seen = hashlib.sha256(sys.version.encode())
    for path in [script, Path(__file__), ROOT / "constraints.txt", *sources()]:
        seen.update(path.read_bytes())
    return seen.hexdigest()[:16]


def sources() -> Iterator[Path]:
    """Walk over the sources of the library and of its ready models, and the tutorials' data."""
    for folder in ("ppl_bif", "models"):
        yield from sorted((ROOT / folder).rglob("*.py"))
    yield from sorted(path for path in DATA.rglob("*") if path.is_file())


def run(script: Path) -> NotebookNode:
    """Run a percent script in a fresh kernel and a folder that is empty but for the data."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.cells.insert(0, new_code_cell(SETUP))
    os.environ.update(QUIET)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").symlink_to(DATA, target_is_directory=True)
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=CELL_SECONDS,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    del notebook.cells[0]
    return notebook


def render(notebook: NotebookNode, stem: str) -> tuple[str, dict[str, bytes]]:
    """Turn a notebook that ran into Markdown and its pictures."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.source.strip():
            parts.append(fence(MARKS.sub("", cell.source).rstrip(), "python"))
            parts.extend(show(cell.outputs, stem, pictures))
    parts.append(f"---\n\n[This page as a script]({stem}.py)")
    return "\n\n".join(parts) + "\n", pictures


def show(outputs: list[Any], stem: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """Render the outputs of a cell; what goes to stderr is progress and is left out."""
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    if printed.strip():
        yield fence(plain(printed))
    for data in (o.data for o in outputs if "data" in o):
        if "image/png" in data:
            yield from picture(base64.b64decode(data["image/png"]), stem, pictures)
        elif "text/markdown" in data:
            yield data["text/markdown"]
        elif plain(data.get("text/plain", "")).strip():
            yield fence(plain(data["text/plain"]))


def picture(png: bytes, stem: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """Keep a picture and refer to it, once: a returned figure is also flushed by the kernel."""
    if png not in pictures.values():
        name = f"{len(pictures) + 1}.png"
        pictures[name] = png
        yield f"![Picture {len(pictures)} of this tutorial]({stem}_files/{name})"


def plain(output: str) -> str:
    """Take out colours, and what a progress bar has overwritten."""
    return "\n".join(line.rsplit("\r", 1)[-1] for line in ANSI.sub("", output).split("\n")).rstrip()


def fence(code: str, language: str = "text") -> str:
    """Fence code longer than any fence within it."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{ticks}{language}\n{code}\n{ticks}"


def cli_help(command: list[str]) -> str:
    """Return what ``ppl-bif COMMAND --help`` prints."""
    from typer.testing import CliRunner

    from ppl_bif.cli import app

    result = CliRunner().invoke(app, [*command, "--help"], env=QUIET, prog_name="ppl-bif")
    if result.exit_code:
        raise RuntimeError(f"ppl-bif {' '.join(command)} --help failed: {result.output}")
    return plain(result.output).strip("\n")


def text(png: bytes) -> str:
    """Write bytes as text, for JSON."""
    return base64.b64encode(png).decode()


def write(path: Path, content: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(content, "utf-8")
    part.replace(path)
