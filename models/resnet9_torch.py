"""ResNet-9 for 32x32 pictures in PyTorch, with BatchNorm or GroupNorm, and its training."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from ppl_bif_models.resnet9_recipe import BATCH, DECAY, EPOCHS, GROUPS, MOMENTUM, RISING, STEP

__all__ = ["resnet9", "train"]

# Pictures are moved by up to so many pixels, and mirrored, anew each time they are seen.
SHIFT = 4


def resnet9(
    seed: int = 0, *, width: int = 64, norm: str = "batch", channels: int = 3, classes: int = 10
) -> nn.Sequential:
    """Return ResNet-9 (Page 2018) from pictures ``(row, channel, 32, 32)`` to logits.

    Parameters
    ----------
    seed
        Of the weights.
    width
        Channels of the first layer: 64 make 6.6 million weights, 32 make 1.6 million.
    norm
        ``"batch"`` or ``"group"``.
    channels, classes
        Of the pictures.
    """
    if norm not in ("batch", "group"):
        raise ValueError(f'norm must be "batch" or "group"; got {norm!r}')
    wide = [width * 2**i for i in range(4)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *(_block(channels, wide[0], norm), _block(wide[0], wide[1], norm), nn.MaxPool2d(2)),
            *(_Residual(wide[1], norm), _block(wide[1], wide[2], norm), nn.MaxPool2d(2)),
            *(_block(wide[2], wide[3], norm), nn.MaxPool2d(2), _Residual(wide[3], norm)),
            *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(wide[3], classes)),
        )


def train(
    network: nn.Module,
    x: Any,
    y: Any,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    device: str = "cpu",
) -> nn.Module:
    """Train by Nesterov momentum with weight decay, on mirrored and moved pictures.

    Parameters
    ----------
    network
        It is trained in place.
    x, y
        Pictures ``(row, channel, height, width)``, scaled, and classes ``(row,)``.
    seed
        Of the order, and of how pictures are moved.
    epochs
        Passes over the pictures.
    device
        Where; on a GPU, passes are in bfloat16.
    """
    network = network.to(device, memory_format=torch.channels_last).train()
    x, y = torch.as_tensor(x, device=device), torch.as_tensor(y, device=device)
    padded = pad(x, [SHIFT] * 4)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=STEP, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True
    )
    steps = epochs * -(-len(y) // BATCH)
    rises = max(1, round(RISING * steps))
    curve = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / rises, max(0, steps - i) / max(1, steps - rises))
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(y), generator=generator).to(device)
        moves = torch.randint(2 * SHIFT + 1, (2, len(y)), generator=generator).to(device)
        mirrors = (torch.rand(len(y), generator=generator) < 0.5).to(device)
        for rows in order.split(BATCH):
            images = _moved(padded, rows, moves[:, rows], mirrors[rows], x.shape[2:])
            with torch.autocast(torch.device(device).type, torch.bfloat16, "cuda" in device):
                loss = cross_entropy(network(images), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.step()
    return network.to(memory_format=torch.contiguous_format).cpu().eval()


def _moved(padded: Tensor, rows: Tensor, moves: Tensor, mirrors: Tensor, size: Any) -> Tensor:
    """Cut each picture out of its padded one, and mirror some."""
    height, width = (torch.arange(n, device=rows.device) for n in size)
    down, right = (
        move[:, None] + places for move, places in zip(moves, (height, width), strict=True)
    )
    right = torch.where(mirrors[:, None], right.flip(1), right)
    return padded[rows[:, None, None], :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


def _norm(channels: int, norm: str) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(GROUPS, channels)


def _block(inside: int, outside: int, norm: str) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
    return nn.Sequential(convolution, _norm(outside, norm), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _block(channels, channels, norm), _block(channels, channels, norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)
