"""Rows of a minibatch: drawn without replacement, without ranking all of the data."""

import torch
from torch import Tensor

from ppl_bif.kernel import MANY_ROWS, spare_draws

__all__ = ["draw_rows"]


def draw_rows(
    generator: torch.Generator | None, chains: int, num_rows: int, size: int, device: torch.device
) -> Tensor:
    """Draw a uniform subset of ``0 ... num_rows - 1`` for each chain, ``(chain, size)``.

    The first different ones of somewhat more draws with replacement: whichever values they take,
    all subsets are alike. Where the subset is a large share of all rows, those of the largest of
    as many uniforms.

    Examples
    --------
    >>> rows = draw_rows(None, 2, 1000, 64, torch.device("cpu"))
    >>> rows.shape, len(set(rows[0].tolist()))
    (torch.Size([2, 64]), 64)
    """
    if MANY_ROWS * size > num_rows:
        ranks = torch.rand(chains, num_rows, generator=generator, device=device)
        return ranks.topk(size, dim=1, sorted=False).indices
    spare = spare_draws(size)
    drawn = torch.randint(num_rows, (chains, spare), generator=generator, device=device)
    turns = torch.arange(spare, device=device).expand(chains, -1)
    earliest = drawn.new_full((chains, num_rows), spare).scatter_reduce_(1, drawn, turns, "amin")
    fresh = earliest.gather(1, drawn) == turns
    # Those beyond the first `size` different ones go to a column that is cut off.
    places = torch.where(fresh, fresh.cumsum(1) - 1, size).clamp_max(size)
    return drawn.new_zeros(chains, size + 1).scatter_(1, places, drawn)[:, :size]
