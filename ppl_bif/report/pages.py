"""Where pages are written: looked at before they are made, which takes long, and written then."""

from pathlib import Path

__all__ = ["page_path", "write_page"]


def page_path(path: str | Path, example: str) -> Path:
    """Return the file to write; raise ValueError for a folder, and name an example."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the HTML file to write, such as {example}")
    return path


def write_page(path: Path, page: str) -> Path:
    """Write a page, with the folders above it, and return the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
