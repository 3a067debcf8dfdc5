"""Where a run lies: a folder, or any address that fsspec knows; small files in it, written whole.

Credentials are fsspec's affair: from the environment, or its configuration files.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.core import url_to_fs
from zarr.storage import FsspecStore, LocalStore

from ppl_bif.errors import StoreError

__all__ = ["PART", "Place", "damaged", "place", "telling", "understanding"]

PART = ".part"
REASONS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the quota of the disk is used up: free some space",
    errno.EFBIG: "a file may not grow as large: raise the limit",
    errno.EROFS: "the disk is mounted read-only: choose a path you may write to",
    errno.EACCES: "permission is denied: choose a path you may write to",
    errno.EPERM: "permission is denied: choose a path you may write to",
}


class Place(NamedTuple):
    """A folder of a file system.

    Attributes
    ----------
    address
        As the user gave it.
    files
        The file system, of fsspec.
    root
        Of the folder in it.
    folder
        The same as a path, where it is on this machine.
    """

    address: str
    files: Any
    root: str
    folder: Path | None

    def zarr(self, *, read_only: bool = False) -> Any:
        """Return the folder as Zarr sees it."""
        if self.folder is not None:
            return LocalStore(self.folder, read_only=read_only)
        return FsspecStore.from_url(self.address, read_only=read_only)

    def under(self, name: str) -> str:
        """Return where a file of this name is, in terms of the file system."""
        return f"{self.root}/{name}"

    def names(self, name: str = "") -> list[str]:
        """List a folder; nothing if it is not there."""
        where = self.under(name).rstrip("/")
        self.files.invalidate_cache(where)
        try:
            return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in self._list(where))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _list(self, where: str) -> list[str]:
        found = self.files.ls(where, detail=False)
        return [path for path in found if path.rstrip("/") != where]

    def size(self, name: str) -> int:
        """Return the bytes of a file."""
        return int(self.files.info(self.under(name))["size"])

    def read(self, name: str) -> bytes:
        """Read a file."""
        return bytes(self.files.cat_file(self.under(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        if self.folder is None:
            self.files.pipe_file(self.under(name), content)
            return
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + PART)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def remove(self, name: str) -> None:
        """Remove a file or a folder, if it is there."""
        if self.files.exists(self.under(name)):
            self.files.rm(self.under(name), recursive=True)


def place(address: str | Path) -> Place:
    """Find the file system of a path, or of an address such as ``s3://bucket/run.zarr``.

    Raises
    ------
    StoreError
        If no file system is known by that name.
    """
    try:
        files, root = url_to_fs(str(address))
    except (ImportError, ValueError) as error:
        raise StoreError(f"no file system for {address}: {error}") from error
    local = "file" in (files.protocol if isinstance(files.protocol, tuple) else [files.protocol])
    return Place(str(address), files, root.rstrip("/"), Path(root) if local else None)


def damaged(what: str, error: Exception) -> StoreError:
    """Say that something of a store cannot be read, and what to do."""
    return StoreError(
        f"{what} is damaged ({error}): copy it again from where it came, or remove the store and "
        "sample again"
    )


@contextmanager
def understanding(address: str) -> Iterator[None]:
    """Say that a store is damaged, where what it says of itself makes no sense.

    Raises
    ------
    StoreError
        In place of any error but those of the disk.
    """
    try:
        yield
    except (OSError, StoreError):
        raise
    except Exception as error:
        raise damaged(address, error) from error


@contextmanager
def telling(address: str, more: str = "") -> Iterator[None]:
    """Say what could not be written and what to do, where writing fails.

    Raises
    ------
    StoreError
        In place of an OSError, and of what Zarr says of a chunk that is to be changed and damaged.
    """
    try:
        yield
    except ValueError as error:
        raise damaged(address, error) from error
    except OSError as error:
        why = REASONS.get(error.errno or 0, f"{error}; choose a path you may write to")
        raise StoreError(f"cannot write a store at {address}: {why}{more}") from error
