"""Networks that lie on several devices: modules under ``fully_shard`` (PyTorch's FSDP2).

Each process holds its part of w*, of the weights, of gradients and noise, as plain tensors; the
module itself gathers a layer's weights when it is run, and spreads their gradients. Rows are
shared out among the processes. All draw the same random numbers, and take their part of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from ppl_bif.data import Batch, digest, inputs, map_arrays, num_rows
from ppl_bif.pyro.model import LocalizedModel
from ppl_bif.pyro.network import Network

__all__ = ["ShardedModel", "as_sharded"]


def as_sharded(network: nn.Module) -> Network:
    """Take a sharded module as it is: in evaluation mode, its parts of the weights by name.

    Raises
    ------
    ValueError
        If it is not sharded as ``fully_shard`` does over one axis, or not in float32.
    """
    network.eval()
    for name, w in network.named_parameters():
        if not isinstance(w, DTensor) or w.placements != (Shard(0),):
            found = w.placements if isinstance(w, DTensor) else "a plain tensor"
            raise ValueError(
                "a sharded network must have all parameters sharded by fully_shard over a mesh of "
                f"one axis; {name} is {found}"
            )
        if w.dtype != torch.float32:
            raise ValueError(
                f"a sharded network is sampled in float32; {name} is {w.dtype}: load it in "
                "float32, and pass fully_shard mp_policy=MixedPrecisionPolicy(...)"
            )
    return Network(
        type(network).__qualname__,
        repr(network),
        {name: _part(w).clone() for name, w in network.named_parameters()},
        dict(network.named_buffers()),
        lambda _, *args, **kwargs: network(*args, **kwargs),
        # It holds its weights on the way back by itself.
        lambda _, job: job(),
        None,
        convolves=False,
    )


class ShardedModel(LocalizedModel):
    """A localized model of which each process holds a part.

    The module is run as it is, with the weights of a draw in place of its own, and has its own
    back after each pass.
    """

    sequential_only = True

    def __init__(self, module: nn.Module, **settings: Any) -> None:
        super().__init__(as_sharded(module), **settings)
        self._parameters: dict[str, Any] = dict(module.named_parameters())
        for name, w in self._parameters.items():
            w.requires_grad_(name in self.mode)
        self._group = next(iter(self._parameters.values())).device_mesh.get_group()
        self._rank, self._ranks = dist.get_rank(self._group), dist.get_world_size(self._group)

    @property
    def num_weights(self) -> int:
        """Number of sampled weights of all processes, d."""
        return sum(self._parameters[name].numel() for name in self.mode)

    def fingerprint(self) -> str:
        """Digest of the weights of all processes, and of settings."""
        parts: list[str] = [""] * self._ranks
        dist.all_gather_object(parts, super().fingerprint(), group=self._group)
        return digest(parts)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: Pyro's own inference knows nothing of parts."""
        raise TypeError(
            "a sharded network is sampled by ppl_bif.pyro.SGLD through ppl_bif.sample; as a Pyro "
            "model it would have to be held whole"
        )

    def check_kernel(self, kernel: Any) -> None:
        """Raise ValueError for kernels that need more than gradients."""
        if kernel.name != "SGLD" or kernel.preconditioner is not None:
            raise ValueError(
                "a sharded network is sampled by SGLD without preconditioner; got "
                f"{kernel.settings}"
            )
        if kernel.step_size is None or self.localization is None:
            raise ValueError(
                "a sharded network needs localization and step_size as numbers: finding them takes "
                "second derivatives, which fully_shard does not give"
            )

    def noise(self, name: str, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw standard normals of a whole site, and keep one's own, ``(chain, ...)``."""
        whole = self._parameters[name]
        shape = (len(like), *whole.shape)
        drawn = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        # As fully_shard cuts: equal parts of the first axis, of which the last may be short.
        size = -(-whole.shape[0] // self._ranks)
        return drawn[:, self._rank * size : (self._rank + 1) * size]

    def total(self, part: Tensor) -> Tensor:
        """Add up what each process has found."""
        dist.all_reduce(part, group=self._group)
        return part

    def log_likelihood(self, weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Pointwise log-likelihoods of all rows, of which each process works out its share."""
        found: Tensor = _Shared.apply(self, batch, list(weights), *weights.values())
        return found

    def shared_out(self, batch: Batch) -> Tensor:
        """Work out one's own share of rows, as many for each process: the last may come again."""
        rows = num_rows(batch)
        mine = self._mine(rows).clamp_max(rows - 1)
        few = map_arrays(lambda a: a[mine.to(a.device)], batch)
        args, named = inputs(few)
        return self.likelihood.pointwise(self.network.apply({}, *args, **named), few)

    def gathered(self, values: Tensor, rows: int) -> Tensor:
        """Lay the shares of all processes one after another."""
        parts = [torch.empty_like(values) for _ in range(self._ranks)]
        dist.all_gather(parts, values.contiguous(), group=self._group)
        return torch.cat(parts)[:rows]

    def own(self, slope: Tensor) -> Tensor:
        """Cut one's own share out of what belongs to all rows; 0 for those that came again."""
        mine = self._mine(len(slope)).to(slope.device)
        each = slope[mine.clamp_max(len(slope) - 1)]
        return torch.where((mine < len(slope)).view(-1, *(1,) * (slope.ndim - 1)), each, 0.0)

    @contextmanager
    def holding(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Have the module hold parts of weights for a while, and w* again afterwards."""
        self._load(weights)
        try:
            yield
        finally:
            self._load(self.mode)

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        for name, w in weights.items():
            _part(self._parameters[name]).copy_(w)

    def slopes(self, names: list[str]) -> list[Tensor]:
        """Take the gradients that a pass back has left; ``fully_shard`` means over processes."""
        found = []
        for name in names:
            parameter = self._parameters[name]
            slope = parameter.grad
            part = _part(parameter) if slope is None else _part(slope)
            found.append(torch.zeros_like(part) if slope is None else part * self._ranks)
            parameter.grad = None
        return found

    def _mine(self, rows: int) -> Tensor:
        size = -(-rows // self._ranks)
        return torch.arange(self._rank * size, (self._rank + 1) * size)


class _Shared(torch.autograd.Function):
    """Log-likelihoods as a function of parts of weights: a pass of the module, and one back."""

    @staticmethod
    def forward(ctx: Any, model: ShardedModel, batch: Batch, names: list[str], *parts: Any) -> Any:
        ctx.model, ctx.weights = model, dict(zip(names, parts, strict=True))
        with model.holding(ctx.weights), torch.set_grad_enabled(any(ctx.needs_input_grad)):
            ctx.values = model.shared_out(batch)
        return model.gathered(ctx.values.detach(), num_rows(batch))

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        # On the way back the module gathers the weights of a layer anew.
        with ctx.model.holding(ctx.weights), torch.enable_grad():
            torch.autograd.backward(ctx.values, ctx.model.own(slopes[0]))
        return None, None, None, *ctx.model.slopes(list(ctx.weights))


def _part(w: Any) -> Tensor:
    part: Tensor = w.to_local()
    return part.detach()
