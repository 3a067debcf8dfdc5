"""A Matplotlib figure that notebooks show without pyplot; imported only when a plot is made."""

from io import BytesIO

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = ["StandaloneFigure", "airy"]


class StandaloneFigure(Figure):
    """A figure owned by its caller alone: savable anywhere, shown at the end of a notebook cell."""

    def _repr_png_(self) -> bytes:
        # Jupyter knows how to show plain Figures only once somebody has imported pyplot.
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=130)
        return buffer.getvalue()


def airy() -> ConstrainedLayoutEngine:
    """Return a layout that leaves a tenth of an inch around every panel."""
    return ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
