"""Whether chains fit in memory together: an estimate, held against what a device says is free."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from ppl_bif.data import Batch, map_arrays

__all__ = ["chains_fit", "memory_per_chain", "memory_per_row", "memory_to_use", "peak_memory"]

# Of each chain: its weights, those before a step, a gradient and noise.
COPIES = 4
# Of the memory of a host, whose free part is a matter of the moment, and would make the choice one.
SHARE_OF_HOST = 0.5
# Of a GPU's free memory: allocators leave gaps, and libraries take workspaces.
SHARE_OF_FREE = 0.8


def chains_fit(chains: int, per_chain: int, available: float | None) -> bool:
    """Say whether chains of so many bytes each fit; what is not known is taken to be enough.

    Examples
    --------
    >>> chains_fit(4, 2**30, 8 * 2**30), chains_fit(4, 2**30, 2 * 2**30), chains_fit(4, 1, None)
    (True, False, True)
    """
    return available is None or chains * per_chain <= available


def memory_per_chain(weights: int, per_row: int, rows: int) -> int:
    """Bytes of a chain: of copies of its weights, and of what a gradient of some rows keeps."""
    return COPIES * weights + rows * per_row


def memory_per_row(kept: Callable[[Batch], int], batch: Batch) -> int:
    """Bytes that are kept of each row, told from what is kept of two rows and of one."""
    return kept(map_arrays(lambda a: a[:2], batch)) - kept(map_arrays(lambda a: a[:1], batch))


def memory_to_use(free: int | None) -> float | None:
    """Bytes that chains may take: of a GPU's free memory, or of the host's where that is None."""
    if free is not None:
        return SHARE_OF_FREE * free
    try:
        return SHARE_OF_HOST * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def peak_memory() -> int:
    """Return the most bytes that this program has held."""
    # What is told of a process holds the peak of the one that started it.
    if (status := Path("/proc/self/status")).exists():
        peaks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        if peaks:
            return 1024 * int(peaks[0].split()[1])
    # Windows does not tell.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
