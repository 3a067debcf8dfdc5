"""A Matplotlib figure that notebooks show without pyplot; imported only when a plot is made."""

from io import BytesIO

from matplotlib.figure import Figure

__all__ = ["StandaloneFigure"]


class StandaloneFigure(Figure):
    """A figure owned by its caller alone: savable anywhere, shown at the end of a notebook cell."""

    def _repr_png_(self) -> bytes:
        # Jupyter knows how to show plain Figures only once somebody has imported pyplot.
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=130)
        return buffer.getvalue()
