"""Pictures as text that a page can carry: arrays and figures in, data addresses of PNGs out."""

from base64 import b64encode
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.plots.diagnostics import Panel, panels, plot_panel
from ppl_bif.plots.style import ThemeName

__all__ = ["PanelPicture", "array_png", "panel_pictures"]

LARGEST = 192
"""Pixels: no picture of a row is shown larger, so none is stored larger."""


class PanelPicture(NamedTuple):
    """A figure in the colours of a light and of a dark page, and what it shows in words."""

    light: str
    dark: str
    title: str


def array_png(picture: np.ndarray | None) -> str | None:
    """Return the picture of a row, uint8 (y, x) or (y, x, c), as a data address."""
    if picture is None:
        return None
    from PIL import Image

    image = Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
    image.thumbnail((LARGEST, LARGEST))
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return _address(buffer)


def panel_pictures(check: xr.Dataset, idata: Any) -> list[PanelPicture]:
    """Draw every picture of a diagnosis, once for a light and once for a dark page."""
    return [
        PanelPicture(
            light=_figure(panel, check, idata, "light"),
            dark=_figure(panel, check, idata, "dark"),
            title=title,
        )
        for title, panel in panels(check, idata).items()
    ]


def _figure(panel: Panel, check: xr.Dataset, idata: Any, theme: ThemeName) -> str:
    buffer = BytesIO()
    figure = plot_panel(panel, check, idata, theme)
    # Without the name of the software, equal runs give equal pages.
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return _address(buffer)


def _address(buffer: BytesIO) -> str:
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode("ascii")
