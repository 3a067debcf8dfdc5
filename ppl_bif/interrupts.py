"""Ctrl-C that waits for a draw: the first one asks, a second one stops at once."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Stop", "heeding"]


class Stop:
    """Whether Ctrl-C was pressed.

    Attributes
    ----------
    asked
        It was, while draws were made.
    drawing
        Draws are made, which can be kept; elsewhere there is nothing to wait for.
    """

    asked = drawing = False

    def press(self, *_: Any) -> None:
        """Take note; stop at once where there is nothing to wait for, or the second time."""
        if self.asked or not self.drawing:
            raise KeyboardInterrupt
        self.asked = True
        sys.stderr.write("stopping at the next draw; press Ctrl-C again to stop at once\n")


@contextmanager
def heeding(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C wait for a draw, where it has its usual meaning otherwise."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, stop.press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
