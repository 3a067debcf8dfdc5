"""Weights of a draw in a file that networks load."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ppl_bif.checks import whole
from ppl_bif.schema import group

__all__ = ["save_draw"]


def save_draw(run: Any, path: str | Path, *, chain: int, draw: int) -> Path:
    """Write the weights of one draw of a run as safetensors, by the names the network has for them.

    What was not sampled is not in it: load it over the trained weights, with
    ``network.load_state_dict(safetensors.torch.load_file(path), strict=False)`` in PyTorch.

    Parameters
    ----------
    run
        Of :func:`ppl_bif.sample` with ``save_weights``; one on disk is read no further than needed.
    path
        File to write.
    chain, draw
        Which draw.

    Returns
    -------
    pathlib.Path
        Of the file.

    Raises
    ------
    ValueError
        If the run holds no weights, or no such draw.

    Examples
    --------
    >>> import tempfile
    >>> import xarray as xr
    >>> posterior = xr.Dataset({"layer.bias": (("chain", "draw", "i"), np.zeros((2, 5, 3)))})
    >>> run = xr.DataTree.from_dict({"posterior": posterior})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_draw(run, f"{folder}/draw.safetensors", chain=0, draw=4).name
    'draw.safetensors'
    """
    posterior = group(run, "posterior")
    if posterior is None:
        raise ValueError("the run holds no weights: sample with save_weights=True, or their names")
    at = {"chain": whole("chain", chain, least=0), "draw": whole("draw", draw, least=0)}
    for dim, place in at.items():
        if place >= posterior.sizes[dim]:
            raise ValueError(f"{dim} must be below {posterior.sizes[dim]}; got {place}")
    one = posterior.isel(at)
    save_file({str(n): np.ascontiguousarray(w.values) for n, w in one.data_vars.items()}, path)
    return Path(path)
