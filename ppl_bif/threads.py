"""Work in independent parts, on as many threads as a matrix product would use."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_info, threadpool_limits

__all__ = ["in_threads"]

Part = TypeVar("Part")


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
    libraries = [found for found in threadpool_info() if found["user_api"] == "blas"]
    threads = max((found["num_threads"] for found in libraries), default=1)
    if threads == 1:
        for part in parts:
            work(part)
        return
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, parts):
            pass
