"""A row of the GPU table in PyTorch: passes by hand, and what ``ppl_bif`` makes of them."""

import copy
from typing import Any

import torch
from torch import nn

from benchmarks.speed.gpu_rows import (
    Row,
    Subject,
    bound,
    everything,
    localized,
    sampled,
    torch_network,
    whole_run,
)
from ppl_bif.pyro import SGLD, localize

__all__ = ["subject"]


def subject(row: Row, device: str) -> Subject:
    """Build the network, sample a little for the peak of memory, and return what is timed."""
    network = torch_network(row, device)
    model = localize(network, **localized(row), device=device)
    kernel = SGLD(model, **sampled(row))
    peak = _peak(kernel, row, device)
    engine = bound(kernel, row)
    state = [engine.start([0], 0)]
    # By hand in bfloat16 alone, beside our float32 masters: on the device only now.
    forward, backward = _bare(copy.deepcopy(network).to(device, torch.bfloat16), row)

    def step() -> None:
        with torch.no_grad():
            state[0] = kernel.advance(state[0]._replace(i=1), engine.train, row.steps)

    def score() -> None:
        for name in ("train", "query"):
            engine.log_likelihood(state[0], name)

    def draw(count: int) -> None:
        state[0], _ = engine.draws(state[0]._replace(i=0), row.steps, count, most=count, names=())

    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    return Subject(forward, backward, score, step, draw, wait, peak, model.num_weights)


def _peak(kernel: Any, row: Row, device: str) -> int | None:
    """Return the most bytes on the GPU in a whole run."""
    if not device.startswith("cuda"):
        whole_run(kernel, row)
        return None
    torch.cuda.reset_peak_memory_stats()
    whole_run(kernel, row)
    return torch.cuda.max_memory_allocated()


def _bare(network: nn.Module, row: Row) -> tuple[Any, Any]:
    """Return forward passes over all rows, and gradients of as many batches as a draw has steps."""
    weights = list(network.requires_grad_(True).parameters())
    place = weights[0].device
    x, y = (torch.as_tensor(array, device=place) for array in everything(row))

    def losses(x: Any, y: Any) -> Any:
        logits = network(x.bfloat16() if x.is_floating_point() else x).float()
        # Classes last: where they are not, PyTorch takes softmaxes several times slower.
        found = nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none")
        return found.view_as(y)

    def forward() -> Any:
        with torch.no_grad():
            parts = zip(x.split(row.at_once), y.split(row.at_once), strict=True)
            return torch.cat([losses(*part) for part in parts]).cpu()

    def backward() -> None:
        for _ in range(row.steps):
            torch.autograd.grad(losses(x[: row.batch], y[: row.batch]).sum(), weights)

    return forward, backward
