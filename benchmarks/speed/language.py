"""Language models of the GPU benchmarks, with random weights: GPT-2 and the Pythia sizes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["PYTHIA", "SHAPES", "Shape", "language_model"]


class Shape(NamedTuple):
    """Sizes of a decoder.

    Attributes
    ----------
    width, layers, heads, vocabulary, places
        Sizes.
    pythia
        Whether it is made as GPT-NeoX: attention beside the other half of a layer, rotary places
        in a quarter of each head, a head of its own weights. Otherwise as GPT-2.
    """

    width: int
    layers: int
    heads: int
    vocabulary: int = 50_304
    places: int = 2048
    pythia: bool = True


PYTHIA = {
    "14m": Shape(128, 6, 4),
    "70m": Shape(512, 6, 8),
    "160m": Shape(768, 12, 12),
    "410m": Shape(1024, 24, 16),
    "1b": Shape(2048, 16, 8),
    "1.4b": Shape(2048, 24, 16),
    "2.8b": Shape(2560, 32, 32),
}
SHAPES = {
    "gpt-124m": Shape(768, 12, 12, vocabulary=50_257, places=1024, pythia=False),
    **{f"pythia-{size}": shape for size, shape in PYTHIA.items()},
}
ROTARY_SHARE, ROTARY_BASE = 4, 10_000.0


def language_model(shape: Shape) -> nn.Module:
    """Build a decoder from token ids ``(row, token)`` to logits ``(row, token, vocabulary)``."""
    return _Decoder(shape)


class _Decoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        if not shape.pythia:
            self.places = nn.Embedding(shape.places, shape.width)
        self.layers = nn.Sequential(*(_Layer(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        # As both were initialized; PyTorch's embeddings are 50 times as large.
        for weight in (self.tokens.weight, self.head.weight):
            nn.init.normal_(weight, std=0.02)
        if not shape.pythia:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        if not self.shape.pythia:
            x = x + self.places(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.layers(x)))


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.pythia = shape.heads, shape.pythia
        self.before_attention, self.before_thought = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        attended = x + self._attention(self.before_attention(x))
        seen = x if self.pythia else attended
        return attended + self.narrow(nn.functional.gelu(self.widen(self.before_thought(seen))))

    def _attention(self, x: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        parts = self.attend(x).view(rows, tokens, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        if self.pythia:
            query, key = _rotated(query), _rotated(key)
        found: Any = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.project(found.transpose(1, 2).reshape(rows, tokens, width))


def _rotated(x: Tensor) -> Tensor:
    """Turn the first quarter of each head's numbers by their places, ``(..., token, number)``."""
    half = x.shape[-1] // ROTARY_SHARE // 2
    slow = torch.arange(half, device=x.device) / half
    places = torch.arange(x.shape[-2], device=x.device)
    # In float32: half precision would lose the places.
    angles = places[:, None] * ROTARY_BASE**-slow
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    turned = first * cosine - second * sine, second * cosine + first * sine
    return torch.cat([*turned, rest], dim=-1)
