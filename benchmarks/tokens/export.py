"""Keep what the tutorial shows of long runs: ``python -m benchmarks.tokens.export STORE STORE``.

Correlations and errors of one query token of each word, pooled over runs, and the mean scores of
the words looked for on each other.
"""

import sys
from pathlib import Path

import numpy as np

import ppl_bif as bif
from benchmarks.tokens import pairs
from benchmarks.tokens.sample import sides

TARGET = Path(__file__).parents[2] / "docs" / "data" / "verses" / "scores.npz"


def main() -> None:
    """Pool runs, and write the file."""
    train, query = sides()
    words, asked = pairs.words(train), pairs.words(query)
    runs = [
        bif.influence(bif.open_store(store), by="token", kind="correlation")
        for store in sys.argv[1:]
    ]
    score = np.mean([run["influence"].values for run in runs], axis=0)
    errors = np.stack([run["mcse"].values for run in runs])
    error = np.sqrt((errors**2).sum(axis=0)) / len(runs)
    prepared = list(pairs.directions(score, words, asked))
    first = np.array([one.rows[0] for one in prepared])
    numbers = {side: [pairs.number(pair[side]) for pair in pairs.PAIRS] for side in (0, 1)}
    matrix = np.array(
        [
            [one.score[:, one.types == wanted].mean() for wanted in numbers[one.language]]
            for one in prepared
        ]
    )
    everywhere = np.ones(len(words.row)), np.ones(len(asked.row))
    found = [one.judged(*everywhere) for one in prepared]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        TARGET,
        query=first,
        score=score[first].astype(np.float16),
        error=error[first].astype(np.float16),
        # From English words to French ones, and the other way.
        matrix=np.stack([matrix[0::2], matrix[1::2]]),
        percentile=np.array([one.percentile for one in found]),
        rank=np.array([(one.rank, one.types, one.among_pairs) for one in found]),
        draws=sum(run.attrs["draws"] * len(run.attrs["chains_used"]) for run in runs),
    )


if __name__ == "__main__":
    main()
