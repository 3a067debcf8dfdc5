"""Peak memory of scoring a language model token by token: ``python -m benchmarks.tokens.memory``.

Of the shape of SmolLM2-135M, or one of Pythia's, with random weights, which memory does not depend
on: draws by SGLD, one row a gradient, and every row scored.
"""

import argparse
import resource
import time
import warnings

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import ppl_bif as bif
from ppl_bif.pyro import SGLD, localize
from ppl_bif_models.language import PYTHIA, pythia

SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}


def main() -> None:
    """Sample once, and say how much memory it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="smollm2", choices=["smollm2", *PYTHIA])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=512)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    network = built(options.network)
    weights = sum(w.numel() for w in network.parameters())
    ids = np.random.default_rng(0).integers(1000, size=(options.rows + 1, options.tokens + 1))
    rows = {"input_ids": ids[:-1, :-1], "labels": ids[:-1, 1:]}
    query = {"input_ids": ids[-1:, :-1], "labels": ids[-1:, 1:]}
    model = localize(network, likelihood="tokens", localization=1e6)
    del network
    kernel = SGLD(model, step_size=1e-8, batch_size=1, steps_per_draw=1, preconditioner=None)
    before, started = peak(), time.perf_counter()
    bif.sample(kernel, train=rows, query=query, chains=1, draws=2, warmup=0, progress=False)
    print(
        f"{options.network}, {weights / 1e6:.1f} million weights, "
        f"{options.rows} x {options.tokens} tokens: "
        f"{peak():.2f} GB at most ({before:.2f} GB before), {time.perf_counter() - started:.0f} s"
    )


def built(name: str) -> torch.nn.Module:
    """Make a network with random weights."""
    if name in PYTHIA:
        return pythia(name)
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMOLLM2)).eval()


def peak() -> float:
    """Return the most memory this process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
