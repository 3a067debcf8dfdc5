"""How well translations are found: ``python -m benchmarks.tokens.judge STORE [STORE ...]``.

Runs are pooled as more chains; two are also held against each other, token by token. Controls:
query tokens shuffled, and in place of each translation another word that is as frequent, as early
and as hard. Baselines: products of gradients in the sampled weights (the limit of an isotropic
posterior, without noise), cosines of embeddings and of the last hidden state.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, jvp, vjp
from torch.nn.functional import cross_entropy, normalize

import ppl_bif as bif
from benchmarks.tokens import pairs
from benchmarks.tokens.sample import QUERY, TRAIN, sides
from ppl_bif.evaluation.ranks import resamples
from ppl_bif_models import verses

RESULTS = Path(__file__).parent / "results.jsonl"
RESAMPLES = 500


def main() -> None:
    """Judge runs and baselines, print the tables, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--name", default="BIF correlation, blocks, ratio 1")
    parser.add_argument("--alone", action="store_true", help="without controls and baselines")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, query = sides()
    words = pairs.words(train), pairs.words(query)
    runs = [correlations(bif.open_store(store)) for store in options.stores]
    pooled = np.mean([run[0] for run in runs], axis=0)
    if len(runs) > 1:
        report_agreement([run[0] for run in runs], *words)
    shuffled = pooled[np.random.default_rng(0).permutation(len(pooled))]
    draws = sum(run[1] for run in runs)
    lines = [line(options.name, pooled, *words, draws)]
    if not options.alone:
        lines.append(line("the same, query tokens shuffled", shuffled, *words, draws))
        alike = pairs.like(words[0], losses(train, words[0]))
        lines.append(line("the same, words alike", pooled, *words, draws, alike))
        # These are of the trained weights alone.
        others = baselines(train, query, *words)
        lines += [line(name, score, *words, 0) for name, score in others.items()]
    with RESULTS.open("a") as file:
        for one in lines:
            print(one)
            file.write(json.dumps(one) + "\n")


def correlations(run: Any) -> tuple[np.ndarray, int]:
    """Return correlations of tokens ``(query, train)``, and how many draws they are of."""
    scores = bif.influence(run, by="token", kind="correlation")
    return scores["influence"].values, scores.attrs["draws"] * len(scores.attrs["chains_used"])


def report_agreement(runs: list[np.ndarray], train: pairs.Words, query: pairs.Words) -> None:
    """Say how alike two runs' scores of single tokens are, and of word types."""
    one, other = runs[:2]
    each = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(one, other, strict=True)]
    asked = np.isin(query.token, [pairs.number(word) for pair in pairs.PAIRS for word in pair])
    print(
        f"two runs, Pearson of a query token's scores: median {np.median(each):.3f} of all, "
        f"{np.median(np.array(each)[asked]):.3f} of the words looked for"
    )
    types = [pairs.by_type(run, train, query) for run in runs[:2]]
    print(f"of scores of word types: {np.corrcoef(types[0].ravel(), types[1].ravel())[0, 1]:.3f}")


def line(
    name: str, score: np.ndarray, train: pairs.Words, query: pairs.Words, draws: int, *sought: Any
) -> dict[str, Any]:
    """Judge one score, with intervals that resample the verses of both sides."""
    prepared = list(pairs.directions(score, train, query, *sought))
    found = [one.judged(np.ones(len(train.row)), np.ones(len(query.row))) for one in prepared]
    drawn = []
    for rows, asked in resamples(TRAIN, QUERY, RESAMPLES, 0):
        seen = np.bincount(rows, minlength=TRAIN)[train.row]
        posed = np.bincount(asked, minlength=QUERY)[query.row]
        drawn.append(measures([one.judged(seen, posed) for one in prepared]))
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    kept = zip(measures(found), low, high, strict=True)
    parts = {
        key: [round(float(v), 3) for v in three]
        for key, three in zip(("percentile", "median_rank", "first", "matched"), kept, strict=True)
    }
    ranks = {f"{one.query} -> {one.train}": [one.rank, one.types] for one in found}
    asked = sum(one.tokens[0] for one in found)
    return {"method": name, "draws": draws, "asked": asked, **parts, "ranks": ranks}


def measures(found: list[pairs.Found]) -> tuple[float, ...]:
    """Return mean percentile, median rank, and directions with the translation first.

    First among all word types of its language, and among the eight translations.
    """
    ranks, among = (np.array([getattr(one, n) for one in found]) for n in ("rank", "among_pairs"))
    percentile = float(np.mean([one.percentile for one in found]))
    return percentile, float(np.median(ranks)), float((ranks == 1).sum()), float((among == 1).sum())


def losses(text: Any, words: pairs.Words) -> np.ndarray:
    """Loss of each token at the trained weights, in nats."""
    with torch.no_grad():
        logits = verses.network()(torch.from_numpy(text.inputs))[words.row, words.position]
    return cross_entropy(logits, torch.from_numpy(words.token), reduction="none").numpy()


def baselines(
    train: Any, query: Any, words: pairs.Words, asked: pairs.Words
) -> dict[str, np.ndarray]:
    """Score by what needs no draws, ``(query, train)``."""
    net = verses.network().requires_grad_(False)
    x, xq = torch.from_numpy(train.inputs), torch.from_numpy(query.inputs)
    with torch.no_grad():
        hidden = [net.norm(net.hidden(ids)[-1]) for ids in (xq, x)]
        last = [
            normalize(h[side.row, side.position], dim=1)
            for h, side in zip(hidden, (asked, words), strict=True)
        ]
        table = normalize(net.embedding.weight, dim=1)
        near = table[asked.token] @ table[words.token].T
    return {
        "products of gradients, blocks": gradients(net, train, query, words, asked),
        "cosine of the last hidden state": (last[0] @ last[1].T).numpy(),
        "cosine of embeddings": near.numpy(),
    }


def gradients(
    net: torch.nn.Module, train: Any, query: Any, words: pairs.Words, asked: pairs.Words
) -> np.ndarray:
    """Products of gradients of log-likelihoods; of a query word, summed over its tokens.

    Each of its tokens gets the mean: what words find is the same, and it takes as many passes as
    there are words.
    """
    sampled = {n: w.detach() for n, w in net.named_parameters() if n.startswith("blocks")}

    def values(weights: dict[str, torch.Tensor], text: Any, side: pairs.Words) -> torch.Tensor:
        logits = functional_call(net, weights, torch.from_numpy(text.inputs))
        labels = torch.from_numpy(text.targets.clip(0))
        each = -cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return each.view(labels.shape)[side.row, side.position]

    out = np.zeros((len(asked.token), len(words.token)), np.float32)
    _, pull = vjp(lambda w: values(w, query, asked), sampled)
    for language, word in {(at, w) for pair in pairs.PAIRS for at, w in enumerate(pair)}:
        mine = (asked.token == pairs.number(word)) & (asked.language == language)
        direction = pull(torch.from_numpy(mine).float() / max(1, mine.sum()))[0]
        out[mine] = jvp(lambda w: values(w, train, words), (sampled,), (direction,))[1].numpy()
    return out


if __name__ == "__main__":
    main()
