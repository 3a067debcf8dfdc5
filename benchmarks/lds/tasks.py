"""The tasks by name: data to attribute to and to explain, trained weights, and retrained losses."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.text import IGNORED, encode
from ppl_bif_models import cifar as cifar10
from ppl_bif_models import verses

DATA = Path(__file__).parent / "data"
# Too large to be committed: chosen from CIFAR-10 at first.
CIFAR_ROWS = DATA / "cifar_rows.npz"


class Spec(NamedTuple):
    """How a task's ground truth is made: retrainings on random halves, each from some seeds."""

    subsets: int
    seeds: int
    networks: int = 5


SPECS = {
    "digits_mlp": Spec(subsets=96, seeds=4),
    "digits_cnn": Spec(subsets=96, seeds=4),
    "fashion_cnn": Spec(subsets=64, seeds=2),
    "cifar_resnet9": Spec(subsets=64, seeds=2, networks=1),
    "verses_gpt": Spec(subsets=32, seeds=2),
}


class Rows(NamedTuple):
    """Images ``(row, pixel)`` or ``(row, channel, y, x)`` float32, and classes ``(row,)`` int64.

    Or tokens ``(row, token)``, and those that come next.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    query_x: np.ndarray
    query_y: np.ndarray


class Task(NamedTuple):
    """A benchmark, as arrays.

    Attributes
    ----------
    rows
        What is attributed to and what is explained.
    weights
        Trained on all rows, one mapping from names to arrays for each seed.
    masks
        ``(subset, train)``: the rows each retraining saw.
    loss
        ``(subset, seed, query)``: the retrained networks' losses.
    """

    name: str
    rows: Rows
    weights: tuple[dict[str, np.ndarray], ...]
    masks: np.ndarray
    loss: np.ndarray

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        return self.rows.train_x, self.rows.train_y

    @property
    def query(self) -> tuple[np.ndarray, np.ndarray]:
        return self.rows.query_x, self.rows.query_y

    @property
    def truth(self) -> xr.Dataset:
        """What a score has to foretell, as :mod:`ppl_bif.evaluation` takes it."""
        loss, mask = (("subset", "seed", "query"), self.loss), (("subset", "train"), self.masks)
        return xr.Dataset({"loss": loss, "mask": mask})


def load(name: str) -> Task:
    """Load a task with its stored ground truth."""
    if name not in SPECS:
        raise ValueError(f"no task {name!r}: there are {', '.join(SPECS)}")
    with np.load(DATA / f"{name}.npz") as stored:
        arrays = dict(stored)
    rows = rows_of(name)
    weights = tuple(_weights(arrays, seed) for seed in range(SPECS[name].networks))
    loss = arrays["loss"].astype(np.float32)
    return Task(name, rows, weights, masks(SPECS[name].subsets, len(rows.train_y)), loss)


@cache
def rows_of(name: str) -> Rows:
    """Load a task's rows."""
    if name.startswith("digits"):
        return digits()
    if name.startswith("verses"):
        return verses_rows()
    with np.load(CIFAR_ROWS if name.startswith("cifar") else DATA / f"{name}.npz") as stored:
        return scaled(dict(stored))


def masks(subsets: int, rows: int) -> np.ndarray:
    """Which half of the rows each retraining sees, ``(subset, train)``; more never move earlier."""
    out = np.zeros((subsets, rows), bool)
    for m in range(subsets):
        out[m, np.random.RandomState(10_000 + m).permutation(rows)[: rows // 2]] = True
    return out


def digits() -> Rows:
    """scikit-learn's 1,797 digits in a fixed random order, the last 360 to explain."""
    from sklearn.datasets import load_digits

    table = load_digits()
    order = np.random.RandomState(0).permutation(len(table.target))
    x, y = (table.data[order] / 16).astype(np.float32), table.target[order].astype(np.int64)
    return Rows(x[:1437], y[:1437], x[1437:], y[1437:])


def verses_rows(rows: int = 512, queries: int = 64, length: int = 48) -> Rows:
    """Choose English verses of like length, at random and always the same."""
    texts = {verse.place: verse.en for verse in verses.excerpt()}
    text = encode(verses.tokenizer(), texts, length=length)
    cut = np.array(["#" in name for name in text.ids])
    whole = np.flatnonzero(~cut & ((text.targets != IGNORED).sum(axis=1) >= length // 2))
    some = text.where(np.random.RandomState(0).permutation(whole)[: rows + queries])
    x, y = some.batch
    return Rows(x[:rows], y[:rows], x[rows:], y[rows:])


def fashion(folder: str | Path | None = None) -> dict[str, np.ndarray]:
    """Choose 2,000 + 400 of Fashion-MNIST's pictures, as the bytes that are stored."""
    from ppl_bif_models import fashion

    return chosen(fashion.load(folder), 2000, 400)


def cifar(folder: str | Path | None = None) -> dict[str, np.ndarray]:
    """Choose 5,000 + 500 of CIFAR-10's pictures, as bytes, and keep them beside the others."""
    if not CIFAR_ROWS.exists():
        np.savez(CIFAR_ROWS, **chosen(cifar10.load(folder), 5000, 500))
    with np.load(CIFAR_ROWS) as kept:
        return dict(kept)


def chosen(whole: Any, rows: int, queries: int) -> dict[str, np.ndarray]:
    """Choose training and test pictures at random, always the same."""
    train = np.random.RandomState(0).permutation(len(whole.train_y))[:rows]
    query = np.random.RandomState(0).permutation(len(whole.test_y))[:queries]
    return {
        "train_x": whole.train_x[train],
        "train_y": whole.train_y[train].astype(np.uint8),
        "query_x": whole.test_x[query],
        "query_y": whole.test_y[query].astype(np.uint8),
    }


def scaled(arrays: dict[str, np.ndarray]) -> Rows:
    """Turn stored bytes into rows a network takes: clothes are 0 ... 1, colours centred."""
    colour = arrays["train_x"].ndim > 2
    scale = cifar10.scaled if colour else (lambda x: x / np.float32(255))
    images = (scale(arrays[f"{part}_x"]) for part in ("train", "query"))
    classes = (arrays[f"{part}_y"].astype(np.int64) for part in ("train", "query"))
    (train_x, query_x), (train_y, query_y) = images, classes
    return Rows(train_x, train_y, query_x, query_y)


def named(weights: Iterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Name every seed's weights as they are stored: ``seed0/0.weight``."""
    return {f"seed{s}/{name}": v for s, state in enumerate(weights) for name, v in state.items()}


def _weights(arrays: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    prefix = f"seed{seed}/"
    return {
        # Large networks are kept in half precision: these are the weights, rounded.
        k.removeprefix(prefix): v.astype(np.float32) if v.dtype == np.float16 else v
        for k, v in arrays.items()
        if k.startswith(prefix)
    }
