"""How local a prior is: what its draws do to the loss of the network."""

import torch
from torch import Tensor

from ppl_bif.kernel import PRIOR_DRAWS
from ppl_bif.pyro.chainwise import over_chains
from ppl_bif.pyro.curvature import spread_rows
from ppl_bif.pyro.gradients import Data, at_mode
from ppl_bif.pyro.model import LocalizedModel

__all__ = ["rise_at_prior"]


@torch.no_grad()
def rise_at_prior(model: LocalizedModel, data: Data, localization: float) -> Tensor:
    r"""Mean rise of the loss of a target over that at w*, in nats, by draws of $N(w^*, I/\gamma)$.

    Of up to 1,024 evenly spread rows, fewer where they have very many logits; of tokens, those
    that count.
    """
    generator = torch.Generator(model.device).manual_seed(0)
    some = data.take(spread_rows(model, data))
    mode = at_mode(model)

    def scored(weights: dict[str, Tensor]) -> Tensor:
        return over_chains(lambda w: model.log_likelihood(model.cast(w), some), (weights,))

    before, rise = scored(mode), torch.zeros((), device=model.device)
    for _ in range(PRIOR_DRAWS):
        moved = {n: w + model.noise(n, w, generator) / localization**0.5 for n, w in mode.items()}
        rise = rise + (before - scored(moved)).sum() / PRIOR_DRAWS
    return rise / (before != 0).sum().clamp_min(1)
