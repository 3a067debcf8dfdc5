"""One writer at a time: a lock that the system lets go with its process, or a lease elsewhere."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from filelock import FileLock, Timeout

from ppl_bif.errors import StoreError
from ppl_bif.places import Place, telling

__all__ = ["LOCK_FILES", "only_writer"]

LOCK, OWNER, LEASE = "checkpoint/lock", "checkpoint/writer.json", "checkpoint/lease.json"
LOCK_FILES = {name.removeprefix("checkpoint/") for name in (LOCK, OWNER, LEASE)}
# A lease is renewed three times in its life.
LEASE_SECONDS = 90.0


@contextmanager
def only_writer(place: Place) -> Iterator[None]:
    """Hold a store, so that no other process writes to it.

    In a folder of this machine, the lock is the operating system's, which lets go of it when the
    process ends, however it ends. Elsewhere it is a file with a time, which is renewed while the
    process lives and counts for nothing a minute and a half after.

    Raises
    ------
    StoreError
        If another process writes to it.
    """
    with _lock(place) if place.folder is not None else _lease(place):
        yield


@contextmanager
def _lock(place: Place) -> Iterator[None]:
    assert place.folder is not None
    path = place.folder / LOCK
    with telling(place.address):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreError(_held(place, f"by {_reader(_read(place, OWNER))}")) from error
    try:
        with telling(place.address):
            place.write(OWNER, _owner().encode())
        yield
    finally:
        lock.release()


def _owner(**more: Any) -> str:
    return json.dumps({"host": socket.gethostname(), "process": os.getpid(), **more})


def _reader(text: str) -> str:
    try:
        found = json.loads(text)
        return f"process {int(found['process'])} on {str(found['host'])[:100]!r}"
    except (ValueError, TypeError, KeyError):
        return "another process"


def _held(place: Place, by: str) -> str:
    return (
        f"{place.address} is being written to {by}: wait for it to end, follow it with "
        f"`ppl-bif follow {place.address}`, or choose another path"
    )


@contextmanager
def _lease(place: Place) -> Iterator[None]:
    key, ended = uuid.uuid4().hex, threading.Event()
    if (found := _read_lease(place)) and found["until"] > time.time():
        raise StoreError(_held(place, f"by {_reader(json.dumps(found))}"))
    with telling(place.address):
        _renew(place, key)
    if (found := _read_lease(place)) is None or found.get("key") != key:
        raise StoreError(_held(place, "by another process"))
    thread = threading.Thread(target=_keep, args=(place, key, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        place.remove(LEASE)


def _read(place: Place, name: str) -> str:
    try:
        return place.read(name).decode(errors="replace")
    except OSError:
        return ""


def _read_lease(place: Place) -> dict[str, Any] | None:
    try:
        found = json.loads(_read(place, LEASE))
        return {**found, "until": float(found["until"])}
    except (ValueError, TypeError, KeyError):
        return None


def _renew(place: Place, key: str) -> None:
    place.write(LEASE, _owner(key=key, until=time.time() + LEASE_SECONDS).encode())


def _keep(place: Place, key: str, ended: threading.Event) -> None:
    while not ended.wait(LEASE_SECONDS / 3):
        try:
            _renew(place, key)
        except OSError:
            # The writing itself will say so.
            continue
