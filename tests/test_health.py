"""What tells against the scores of a run."""

import numpy as np
import pytest
import xarray as xr

from ppl_bif.health import health, reasons_to_refuse


def run(*, diverged):
    """Draws of four chains, some of which were lost half way."""
    lost = np.zeros((4, 40), bool)
    lost[diverged, 20:] = True
    dims = ("chain", "draw")
    stats = {"diverging": (dims, lost), "distance": (dims, np.ones((4, 40)))}
    return xr.DataTree.from_dict({"sample_stats": xr.Dataset(stats)})


@pytest.mark.parametrize("diverged", [[], [2], [0, 1]])
def test_half_of_the_chains_may_be_lost(diverged):
    found = health(run(diverged=diverged))
    assert found.diverged == len(diverged) / 4
    assert not reasons_to_refuse(found)


def test_survivors_of_most_chains_are_no_sample():
    (reason,) = reasons_to_refuse(health(run(diverged=[0, 2, 3])))
    assert "75% of its chains diverged" in reason
