"""Does the passage a text comes from win? ``python -m benchmarks.passages.judge --brown FOLDER``.

Stores of runs of :mod:`benchmarks.passages.sample` are pooled as more chains. Beside them: products
and cosines of gradients in the same weights (the limit of an isotropic posterior, without noise),
BM25 (``pip install rank_bm25``), and cosines of mean hidden states. Adds to ``results.jsonl``.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import ppl_bif as bif
from benchmarks.passages.sample import Prepared, prepared
from benchmarks.passages.texts import Sides
from ppl_bif.text import IGNORED, Text

RESULTS = Path(__file__).parent / "results.jsonl"
RESAMPLES, TOGETHER = 2000, 10


def main() -> None:
    """Judge runs and baselines, and keep the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*")
    parser.add_argument("--brown", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--alone", action="store_true", help="without the baselines")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = prepared(options.brown)
    scores = dict(influences(options.stores)) if options.stores else {}
    if not options.alone:
        scores |= dict(baselines(known))
    with RESULTS.open("a") as file:
        for name, (score, draws) in scores.items():
            for line in lines(name, score, draws, known.sides):
                print(line)
                file.write(json.dumps(line) + "\n")


Score = tuple[np.ndarray, int]


def influences(stores: list[str]) -> Iterator[tuple[str, Score]]:
    """Pool runs: correlations and covariances, ``(query, train)``, and the draws they are of."""
    runs = [bif.open_store(store) for store in stores]
    for kind in ("correlation", "covariance"):
        each = [bif.influence(run, kind=kind, shrink=None) for run in runs]
        draws = [one.attrs["draws"] * len(one.attrs["chains_used"]) for one in each]
        pooled = np.average([one["influence"].values for one in each], axis=0, weights=draws)
        yield f"BIF {kind}", (pooled, sum(draws))


def baselines(known: Prepared) -> Iterator[tuple[str, Score]]:
    """Score by what needs no draws, ``(query, train)``."""
    products, norms = gradients(known)
    yield "GradDot", (products, 0)
    yield "GradCos", (products / norms, 0)
    train, query = known.sides[:2]
    yield "BM25", (bm25(train, query), 0)
    means = [
        means_of(hidden, text) for hidden, text in ((known.query, query), (known.train, train))
    ]
    centre = means[1].mean(axis=0)
    unit = [(one - centre) / np.linalg.norm(one - centre, axis=1, keepdims=True) for one in means]
    yield "cosine of mean hidden states, centred", (unit[0] @ unit[1].T, 0)


def gradients(known: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """Products of gradients in the sampled weights, and of their norms, ``(query, train)``."""
    network = known.network.requires_grad_(False)
    sampled = {n: w for n, w in network.named_parameters() if ".layers." in n}

    def loss(weights: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = functional_call(network, weights, (hidden[None],))[0]
        return cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")

    def gradient(hidden: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        found = torch.func.grad(loss)(sampled, hidden, torch.from_numpy(labels))
        return torch.cat([g.flatten() for g in found.values()])

    train, query = known.sides[:2]
    asked = range(0, len(query.ids), TOGETHER)
    products = np.empty((len(query.ids), len(train.ids)), np.float32)
    lengths = [np.empty(len(one.ids), np.float32) for one in (query, train)]
    for start in asked:
        part = slice(start, start + TOGETHER)
        pairs = zip(known.query[part], query.targets[part], strict=True)
        some = torch.stack([gradient(*pair) for pair in pairs])
        lengths[0][part] = some.norm(dim=1)
        for row, pair in enumerate(zip(known.train, train.targets, strict=True)):
            one = gradient(*pair)
            products[part, row], lengths[1][row] = some @ one, one.norm()
    return products, np.outer(*lengths)


def bm25(train: Text, query: Text) -> np.ndarray:
    """Okapi BM25 of words, by the library ``rank_bm25``."""
    from rank_bm25 import BM25Okapi

    words = [[str(text).lower().split() for text in one.about["text"]] for one in (train, query)]
    index = BM25Okapi(words[0])
    return np.stack([index.get_scores(asked) for asked in words[1]])


def means_of(hidden: torch.Tensor, text: Text) -> np.ndarray:
    """Mean of the hidden states of a row's tokens, ``(row, width)``."""
    counted = torch.from_numpy(text.targets != IGNORED)[..., None]
    return ((hidden * counted).sum(1) / counted.sum(1)).numpy()


def lines(name: str, score: np.ndarray, draws: int, sides: Sides) -> Iterator[dict[str, Any]]:
    """Say how often the right passage, and one of the right source, comes first, by kind."""
    better = score > np.take_along_axis(score, sides.answer[:, None], axis=1)
    rank = 1 + better.sum(axis=1)
    source = np.array([one.source for one in sides.documents])
    right = source[score.argmax(axis=1)] == source[sides.answer]
    found = {"first": rank == 1, "reciprocal_rank": 1 / rank, "source": right}
    for kind in np.unique(sides.kind):
        of = sides.kind == kind
        measures = {key: interval(values[of].astype(float)) for key, values in found.items()}
        asked = int(of.sum())
        median = float(np.median(rank[of]))
        yield (
            {"method": name, "draws": draws, "query": kind, "asked": asked}
            | measures
            | {"median_rank": median}
        )


def interval(values: np.ndarray) -> list[float]:
    """Return the mean, and a 95% interval that resamples queries."""
    chosen = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    means = values[chosen].mean(axis=1)
    return [round(float(v), 3) for v in (values.mean(), *np.quantile(means, (0.025, 0.975)))]


if __name__ == "__main__":
    main()
