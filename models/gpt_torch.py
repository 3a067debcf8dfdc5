"""A plain GPT in PyTorch: learned positions, norms before, the embedding tied to the logits."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from ppl_bif.text import IGNORED
from ppl_bif_models.gpt_recipe import BETAS, CLIP, DECAY, RISING, STEP, Shape

__all__ = ["GPT", "gpt", "train"]


def gpt(shape: Shape, seed: int = 0) -> "GPT":
    """Return a GPT from ids ``(row, token)`` to logits ``(row, token, vocabulary)``.

    Parameters
    ----------
    shape
        Its size.
    seed
        Of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(shape)


class GPT(nn.Module):
    """A decoder: logits at each place are of the token that comes next."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        for name, w in self.named_parameters():
            if w.ndim == 2:
                into = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(w, std=0.02 / math.sqrt(2 * shape.layers) if into else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits."""
        return self.norm(self.hidden(ids)[-1]) @ self.embedding.weight.T

    def hidden(self, ids: Tensor) -> list[Tensor]:
        """Return the residual stream, ``(row, token, width)``, at first and after each block."""
        places = torch.arange(ids.shape[-1], device=ids.device)
        stream = [self.embedding(ids) + self.position(places)]
        for block in self.blocks:
            stream.append(block(stream[-1]))
        return stream


class _Block(nn.Module):
    """Attention and a layer of four times the width, each added to what it reads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.up = nn.Linear(shape.width, 4 * shape.width)
        self.down = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self._attend(self.attention_norm(x)))
        return x + self.down(gelu(self.up(self.mlp_norm(x))))

    def _attend(self, x: Tensor) -> Tensor:
        length, width = x.shape[-2:]
        parts = self.qkv(x).unflatten(-1, (3, self.heads, width // self.heads))
        q, k, v = parts.movedim(-3, 0).transpose(-3, -2)
        past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~past, -math.inf).softmax(-1)
        return (weights @ v).transpose(-3, -2).flatten(-2)


def train(
    network: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    epochs: int,
    batch: int = 64,
    step: float = STEP,
    seed: int = 0,
    device: str = "cpu",
    report: Any = None,
) -> nn.Module:
    """Train by AdamW, the step rising at first and falling to 0, and leave it in evaluation mode.

    Rows of like length are put together, so that little is computed of padding.

    Parameters
    ----------
    network
        It is trained in place.
    inputs, targets
        Ids ``(row, token)``, and the ids that come next, -100 where they do not count.
    epochs, batch, step, seed
        Passes over the rows, rows of a step, its largest size, and what the order is drawn from.
    device
        To train on.
    report
        Called with the share that is done and the mean loss since it was called last.
    """
    x, y = torch.as_tensor(inputs).long(), torch.as_tensor(targets).long()
    lengths = (y != IGNORED).long().mul(torch.arange(1, y.shape[1] + 1)).amax(dim=1)
    network.to(device).train()
    matrices = [w for w in network.parameters() if w.ndim > 1]
    others = [w for w in network.parameters() if w.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=step,
        betas=BETAS,
    )
    steps = epochs * -(-len(y) // batch)
    rising = max(1, int(RISING * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / rising, (steps - i) / (steps - rising + 1e-9))
    )
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for at, rows in enumerate(_ordered(lengths, epochs, batch, generator)):
        length = int(lengths[rows].max())
        logits = network(x[rows, :length].to(device))
        loss = cross_entropy(
            logits.flatten(0, -2), y[rows, :length].to(device).flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach().item())
        if report and (at + 1) % 100 == 0:
            report((at + 1) / steps, sum(losses) / len(losses))
            losses.clear()
    return network.eval()


def _ordered(
    lengths: Tensor, epochs: int, batch: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Give the rows of each step: of 50 batches' rows in random order, those alike in length."""
    for _ in range(epochs):
        for some in torch.randperm(len(lengths), generator=generator).split(50 * batch):
            alike = some[lengths[some].argsort()].split(batch)
            for i in torch.randperm(len(alike), generator=generator).tolist():
                yield alike[i]
