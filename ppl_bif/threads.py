"""Work in independent parts, on as many threads as a matrix product would use."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from threadpoolctl import threadpool_info, threadpool_limits

__all__ = ["ahead", "in_threads"]

Part = TypeVar("Part")
_NO_MORE: Any = object()


def in_threads(work: Callable[[Part], object], parts: Iterable[Part]) -> None:
    """Do parts of work, several at a time; within each, matrix products keep to one thread.

    As many at a time as BLAS is allowed threads: ``OMP_NUM_THREADS`` or
    ``threadpoolctl.threadpool_limits`` say so.

    Examples
    --------
    >>> done = []
    >>> in_threads(done.append, range(3))
    >>> sorted(done)
    [0, 1, 2]
    """
    threads = _allowed()
    if threads == 1:
        for part in parts:
            work(part)
        return
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, parts):
            pass


def ahead(items: Iterable[Part]) -> Iterator[Part]:
    """Pass items on, each made in a thread while the one before is worked on.

    With one thread for BLAS each is made when it is asked for: two would take turns on its cache.

    Examples
    --------
    >>> list(ahead(x**2 for x in range(3)))
    [0, 1, 4]
    """
    left = iter(items)
    if _allowed() == 1:
        yield from left
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, left, _NO_MORE)
        while (item := coming.result()) is not _NO_MORE:
            coming = pool.submit(next, left, _NO_MORE)
            yield item


def _allowed() -> int:
    libraries = [found for found in threadpool_info() if found["user_api"] == "blas"]
    return max((found["num_threads"] for found in libraries), default=1)
