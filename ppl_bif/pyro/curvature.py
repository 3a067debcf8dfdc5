"""Largest curvatures of the potential, by Hessian-vector products: they bound the step size."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ppl_bif.pyro.chainwise import flatten, over_chains, unflatten
from ppl_bif.pyro.gradients import Data
from ppl_bif.pyro.model import LocalizedModel
from ppl_bif.pyro.potential import potential

__all__ = ["hessian_product", "lanczos", "likelihood_curvature", "top_curvature"]

MAX_ROWS = 1024


def hessian_product(
    model: LocalizedModel, data: Data, weights: Mapping[str, Tensor]
) -> Callable[[Tensor], Tensor]:
    """Return v -> (beta H + gamma I) v at some weights, on flat vectors ``(chain, d)``.

    The Hessian is that of up to 1,024 evenly spread rows, rescaled to all.
    """
    device = next(iter(weights.values())).device
    chosen = torch.linspace(0, data.rows - 1, min(data.rows, MAX_ROWS), device=device).long()

    def energy(at: Mapping[str, Tensor]) -> Tensor:
        return potential(model, at, *data, chosen)[0]

    def gradient(at: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return over_chains(torch.func.grad(energy), (at,))

    # The graph of the gradient is built once; each product goes back through it.
    pull = torch.func.vjp(gradient, dict(weights))[1]
    return lambda vector: flatten(pull(unflatten(vector, weights))[0])


def top_curvature(
    product: Callable[[Tensor], Tensor], like: Tensor, *, iterations: int = 30
) -> Tensor:
    """Estimate the largest eigenvalue of each chain's symmetric product by power iteration.

    Parameters
    ----------
    product
        Of vectors ``(chain, d)``.
    like
        Such vectors.
    iterations
        Products taken.

    Returns
    -------
    Tensor, (chain,)
    """
    top = _start(like[0]).expand_as(like)
    for _ in range(iterations):
        image = product(top)
        top = image / image.norm(dim=1, keepdim=True).clamp_min(_tiny(like))
    return (top * product(top)).sum(1).abs()


def likelihood_curvature(model: LocalizedModel, data: Data) -> Tensor:
    """Largest eigenvalue at w* of beta H, the Hessian of the tempered loss without the prior."""
    # Any precision of the prior will do: it moves every eigenvalue alike.
    known = model.resolve(1.0) if model.localization is None else model
    mode = {name: w.unsqueeze(0) for name, w in model.mode.items()}
    top = top_curvature(hessian_product(known, data, mode), flatten(mode))
    return top[0] - known.precision


def lanczos(
    product: Callable[[Tensor], Tensor], like: Tensor, *, rank: int
) -> tuple[Tensor, Tensor]:
    """Find the ``rank`` largest eigenpairs of a symmetric product of vectors ``(d,)``.

    Returns
    -------
    values : Tensor, (rank,)
        Largest first.
    vectors : Tensor, (rank, d)
    """
    steps = min(len(like), 2 * rank + 10)
    basis = like.new_zeros(steps + 1, len(like))
    diagonal, beside = like.new_zeros(steps), like.new_zeros(steps)
    basis[0] = _start(like)
    for i in range(steps):
        image = product(basis[i])
        diagonal[i] = image @ basis[i]
        # Orthogonalized twice against all: float32 would lose it otherwise.
        for _ in range(2):
            image = image - basis[: i + 1].T @ (basis[: i + 1] @ image)
        beside[i] = image.norm()
        basis[i + 1] = image / beside[i].clamp_min(_tiny(like))
    small = torch.diag(diagonal) + torch.diag(beside[:-1], 1) + torch.diag(beside[:-1], -1)
    values, vectors = torch.linalg.eigh(small)
    order = values.argsort(descending=True)[:rank]
    return values[order], vectors[:, order].T @ basis[:-1]


def _start(like: Tensor) -> Tensor:
    start = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    return start / start.norm()


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
