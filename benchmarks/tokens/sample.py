"""Sample the bilingual GPT: ``python -m benchmarks.tokens.sample STORE --seed 0``.

120 verses it was trained on, 80 it never saw. The blocks' weights are sampled, in a posterior that
is nearly isotropic: gamma is what raises the loss by a tenth of a nat if all noise is isotropic,
and beta puts the top curvature of the tempered loss at ``ratio`` times gamma.
"""

import argparse
import time
from typing import Any

import torch

import ppl_bif as bif
from benchmarks.tokens import pairs
from ppl_bif.pyro import UnderdampedLangevin, localize
from ppl_bif.text import Text
from ppl_bif_models import verses

TRAIN, QUERY = 120, 80
# The top eigenvalue of the Hessian of the summed loss, in the blocks and in all weights.
CURVATURE = {"blocks.*": 1.6e5, "*": 1.85e5}
WARMUP, BATCH, STEPS = 60, 8, 3


def main() -> None:
    """Sample, and keep the run on disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--max-time", type=float, help="seconds of sampling, in place of draws")
    parser.add_argument("--sites", default="blocks.*", choices=CURVATURE)
    parser.add_argument("--ratio", type=float, default=1.0)
    parser.add_argument("--localization", type=float, default=1e4)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, query = sides()
    started = time.perf_counter()
    run = bif.sample(
        kernel(options.sites, options.ratio, options.localization, options.device),
        train=train.batch,
        query=query.batch,
        train_ids=train.ids,
        query_ids=query.ids,
        constant_data=train.constant("train") | query.constant("query"),
        chains=options.chains,
        draws="auto" if options.max_time else options.draws,
        max_time=options.max_time,
        warmup=WARMUP,
        seed=options.seed,
        chain_method="sequential" if options.device == "cpu" else "vectorized",
        store=options.store,
    )
    print(f"{time.perf_counter() - started:.0f} s", run.attrs["tuning"])


def sides() -> tuple[Text, Text]:
    """Choose the verses that are attributed to, and those that are explained."""
    return pairs.chosen(TRAIN, unseen=False), pairs.chosen(QUERY, unseen=True)


def kernel(sites: str, ratio: float, localization: float, device: str = "cpu") -> Any:
    """Localize the GPT, and choose how it is sampled."""
    model = localize(
        verses.network(),
        likelihood="tokens",
        sites=sites,
        localization=localization,
        inverse_temperature=ratio * localization / CURVATURE[sites],
        device=device,
    )
    return UnderdampedLangevin(
        model,
        gradient="partition",
        batch_size=BATCH,
        steps_per_draw=STEPS,
        preconditioner=None,
        friction=localization**0.5,
    )


if __name__ == "__main__":
    main()
