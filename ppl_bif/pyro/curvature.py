"""Largest curvatures of the potential, by Hessian-vector products: they bound the step size."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ppl_bif.kernel import CONVOLVED_AT_ONCE, rows_looked_at
from ppl_bif.pyro.chainwise import flatten, over_chains, unflatten
from ppl_bif.pyro.gradients import Data, at_mode
from ppl_bif.pyro.model import LocalizedModel
from ppl_bif.pyro.potential import potential
from ppl_bif.pyro.second import hessian_times

__all__ = [
    "hessian_product",
    "lanczos",
    "likelihood_curvature",
    "share_out",
    "spread_rows",
    "top_curvature",
]


def spread_rows(model: LocalizedModel, data: Data) -> Tensor:
    """Choose up to 1,024 evenly spread rows, fewer where they have very many logits."""
    count = rows_looked_at(data.rows, model.logits_per_row(data.batch))
    return torch.linspace(0, data.rows - 1, count, device=model.device).long()


def share_out(rows: Tensor, chains: int) -> Tensor:
    """Give each chain as many rows of its own, or all where they are fewer, ``(chain, m)``."""
    if len(rows) < chains:
        return rows.expand(chains, -1)
    return rows[: len(rows) - len(rows) % chains].view(-1, chains).T


def hessian_product(
    model: LocalizedModel, data: Data, weights: Mapping[str, Tensor], rows: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return v -> (beta H + gamma I) v at some weights, on flat vectors ``(chain, d)``.

    The Hessian is that of some rows, of each chain its own ``(chain, m)``, rescaled to all.
    """

    def energy(at: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        return potential(model, at, *data, rows)[0]

    if model.convolves_on_cpu:
        return _in_parts(energy, weights, rows)
    slope = torch.func.grad(energy)
    # The graph of the gradient is built once; each product goes back through it.
    # Fused attention has no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        pull = torch.func.vjp(lambda at: over_chains(slope, (at, rows)), dict(weights))[1]
    return lambda vector: flatten(pull(unflatten(vector, weights))[0])


def _in_parts(
    energy: Callable[..., Tensor], weights: Mapping[str, Tensor], rows: Tensor
) -> Callable[[Tensor], Tensor]:
    """Go chain by chain and part by part: ``vmap`` is slow here, and all graphs are too large."""
    sizes = [part.shape[1] / rows.shape[1] for part in rows.split(CONVOLVED_AT_ONCE, dim=1)]

    def image(at: dict[str, Tensor], rows: Tensor, vector: dict[str, Tensor]) -> dict[str, Tensor]:
        return hessian_times(lambda w: energy(w, rows), at, vector)

    def product(vector: Tensor) -> Tensor:
        along, total = unflatten(vector, weights), torch.zeros_like(vector)
        for size, part in zip(sizes, rows.split(CONVOLVED_AT_ONCE, dim=1), strict=True):
            for chain in range(len(vector)):
                own = [{n: w[chain : chain + 1] for n, w in of.items()} for of in (weights, along)]
                found = over_chains(image, (own[0], part[chain : chain + 1], own[1]))
                total[chain] += size * flatten(found)[0]
        return total

    return product


def top_curvature(product: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Largest eigenvalue of each chain's symmetric product, by 12 steps of Lanczos, ``(chain,)``.

    The product is of vectors ``(chain, d)``, shaped as ``like``.
    """
    return lanczos(product, like, rank=1)[0][:, 0]


def likelihood_curvature(model: LocalizedModel, data: Data) -> Tensor:
    """Largest eigenvalue at w* of beta H, the Hessian of the tempered loss without the prior."""
    # Any precision of the prior will do, which moves every eigenvalue alike; the same for all, so
    # that a localization that was found and one that is given end in the same steps.
    known = model.resolve(1.0)
    mode, rows = at_mode(model), spread_rows(model, data)[None]
    top = top_curvature(hessian_product(known, data, mode, rows), flatten(mode))
    return top[0] - known.precision


def lanczos(
    product: Callable[[Tensor], Tensor], like: Tensor, *, rank: int
) -> tuple[Tensor, Tensor]:
    """Find the ``rank`` largest eigenpairs of each chain's symmetric product of ``(chain, d)``.

    Returns
    -------
    values : Tensor, (chain, rank)
        Largest first.
    vectors : Tensor, (chain, rank, d)
    """
    chains, size = like.shape
    steps = min(size, 2 * rank + 10)
    basis = like.new_zeros(chains, steps + 1, size)
    diagonal, beside = like.new_zeros(chains, steps), like.new_zeros(chains, steps)
    basis[:, 0] = _start(like[0])
    for i in range(steps):
        image = product(basis[:, i])
        diagonal[:, i] = (image * basis[:, i]).sum(1)
        known = basis[:, : i + 1]
        # Orthogonalized twice against all: float32 would lose it otherwise.
        for _ in range(2):
            along = torch.einsum("ckd,cd->ck", known, image)
            image = image - torch.einsum("ckd,ck->cd", known, along)
        beside[:, i] = image.norm(dim=1)
        basis[:, i + 1] = image / beside[:, i : i + 1].clamp_min(_tiny(like))
    off = beside[:, :-1]
    small = torch.diag_embed(diagonal) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    values, vectors = torch.linalg.eigh(small)
    found = vectors.flip(-1)[..., :rank].transpose(1, 2) @ basis[:, :-1]
    return values.flip(-1)[:, :rank], found


def _start(like: Tensor) -> Tensor:
    start = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    return start / start.norm()


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
