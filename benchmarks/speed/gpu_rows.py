"""Rows of the GPU table: networks with random weights, and how much of what data they see."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed.language import SHAPES, Shape, language_model

__all__ = [
    "ROWS",
    "Row",
    "Subject",
    "as_small",
    "bound",
    "data",
    "everything",
    "localized",
    "sampled",
    "torch_network",
    "whole_run",
]

LOCALIZATION, STEP = 100.0, 1e-7
PIXELS, CLASSES = 32, 10


class Row(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    network
        ``"resnet9"`` or a name of :data:`benchmarks.speed.language.SHAPES`.
    backend
        ``"pyro"`` or ``"numpyro"``.
    batch, scored, at_once
        Rows of a gradient, rows scored at each draw, and of those scored at a time.
    tokens
        Of a sequence.
    steps
        Between two draws.
    shape
        Of a language model.
    width
        Of a ResNet-9.
    """

    network: str
    backend: str
    batch: int
    scored: int
    at_once: int
    tokens: int = 0
    steps: int = 4
    shape: Shape | None = None
    width: int = 64

    @property
    def likelihood(self) -> str:
        """What the outputs are."""
        return "tokens" if self.shape else "categorical"


class Subject(NamedTuple):
    """What is timed of a row.

    Attributes
    ----------
    forward, backward
        By hand: passes over all scored rows, gradients of as many batches as a draw has steps.
    score, step, draw
        Ours: the same passes, the steps of a draw without the noise of minibatches that every
        eighth draw measures, and so many draws from the first of eight on.
    wait
        For the device.
    peak
        The most bytes on the GPU in a whole run; None where it is not known.
    weights
        How many there are.
    """

    forward: Callable[[], Any]
    backward: Callable[[], Any]
    score: Callable[[], Any]
    step: Callable[[], Any]
    draw: Callable[[int], Any]
    wait: Callable[[], Any]
    peak: int | None
    weights: int


def _language(name: str, batch: int, scored: int, backend: str = "pyro") -> Row:
    # So many tokens as both kinds know places.
    return Row(name, backend, batch, scored, batch, 1024, shape=SHAPES[name])


ROWS = {
    "resnet9": Row("resnet9", "pyro", 512, 8192, 1024),
    "gpt-124m": _language("gpt-124m", 16, 64),
    "gpt-124m-jax": _language("gpt-124m", 16, 64, "numpyro"),
    "pythia-14m": _language("pythia-14m", 16, 64),
    "pythia-70m": _language("pythia-70m", 16, 64),
    "pythia-160m": _language("pythia-160m", 16, 64),
    "pythia-410m": _language("pythia-410m", 16, 64),
    "pythia-1b": _language("pythia-1b", 8, 32),
    "pythia-1.4b": _language("pythia-1.4b", 8, 32),
    "pythia-2.8b": _language("pythia-2.8b", 4, 32),
}


def as_small(row: Row) -> Row:
    """Return a row of the same kind that a CPU goes through in a second."""
    shape = row.shape and row.shape._replace(width=64, layers=1, heads=2, vocabulary=64, places=16)
    return row._replace(
        batch=2, scored=4, at_once=2, tokens=8 if row.tokens else 0, steps=2, shape=shape, width=8
    )


def data(row: Row) -> tuple[Any, Any]:
    """Random rows to attribute to, and as many again to explain."""
    rng = np.random.default_rng(0)
    half = row.scored // 2
    if row.shape is None:
        x = rng.normal(size=(row.scored, 3, PIXELS, PIXELS)).astype(np.float32)
        y = rng.integers(CLASSES, size=row.scored)
    else:
        x = rng.integers(row.shape.vocabulary, size=(row.scored, row.tokens))
        y = np.roll(x, -1, axis=1)
    return (x[:half], y[:half]), (x[half:], y[half:])


def everything(row: Row) -> list[Any]:
    """All inputs, and all targets, one after another."""
    return [np.concatenate(both) for both in zip(*data(row), strict=True)]


def torch_network(row: Row, device: str = "cpu") -> Any:
    """Make the weights on a device, in float32, and return the network on the CPU."""
    import torch

    from benchmarks.speed.networks import resnet9

    torch.manual_seed(0)
    with torch.device(device):
        network = language_model(row.shape) if row.shape else resnet9(width=row.width).eval()
    network = network.cpu()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return network


def localized(row: Row) -> dict[str, Any]:
    """Settings of the model."""
    return {
        "likelihood": row.likelihood,
        "localization": LOCALIZATION,
        "compute_dtype": "bfloat16",
    }


def sampled(row: Row) -> dict[str, Any]:
    """Settings of SGLD."""
    return {"batch_size": row.batch, "step_size": STEP, "steps_per_draw": row.steps}


def bound(kernel: Any, row: Row) -> Any:
    """Put the data on the device."""
    from ppl_bif.data import as_batch

    batches = {
        name: as_batch(rows, name) for name, rows in zip(("train", "query"), data(row), strict=True)
    }
    return kernel.bind(batches, evaluation_batch_size=row.at_once)


def whole_run(kernel: Any, row: Row) -> None:
    """Run the whole of ``sample`` for a few draws, for what memory it takes."""
    import ppl_bif as bif

    train, query = data(row)
    bif.sample(
        kernel,
        train=train,
        query=query,
        chains=1,
        draws=2,
        warmup=0,
        progress=False,
        evaluation_batch_size=row.at_once,
    )
