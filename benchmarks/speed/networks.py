"""Networks of the speed benchmarks, with random weights: what they have learnt costs nothing."""

from typing import Any

import torch
from torch import Tensor, nn

from ppl_bif_models.resnet9_torch import resnet9

__all__ = ["VOCABULARY", "cnn", "gpt", "mlp", "resnet9"]

WIDTH, CHANNELS = 64, (16, 32)
VOCABULARY, TOKENS, MODEL, HEADS, LAYERS = 512, 64, 128, 4, 4


def mlp() -> nn.Module:
    """Build 64-64-10 on digits."""
    return nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))


def cnn() -> nn.Module:
    """Build convolutions of 16 and 32 channels, pooled, on 8 x 8 pixels."""
    first, second = CHANNELS
    return nn.Sequential(
        *(nn.Conv2d(1, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(4 * second, 10)),
    )


def gpt(tokens: int = TOKENS) -> nn.Module:
    """Build a causal transformer of 4 layers, width 128, on so many tokens of 512 kinds."""
    return _GPT(tokens)


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(MODEL) for _ in range(2))
        self.attend, self.project = nn.Linear(MODEL, 3 * MODEL), nn.Linear(MODEL, MODEL)
        self.think = nn.Sequential(
            nn.Linear(MODEL, 4 * MODEL), nn.GELU(), nn.Linear(4 * MODEL, MODEL)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        parts = self.attend(self.norms[0](x)).view(rows, tokens, 3, HEADS, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen: Any = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).reshape(rows, tokens, MODEL))
        return x + self.think(self.norms[1](x))


class _GPT(nn.Module):
    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, MODEL), nn.Embedding(tokens, MODEL)
        self.layers = nn.Sequential(*(_Layer() for _ in range(LAYERS)), nn.LayerNorm(MODEL))
        self.head = nn.Linear(MODEL, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.head(self.layers(self.tokens(ids) + self.places(places)))
