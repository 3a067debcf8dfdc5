"""Networks that keep no activations: what is computed again is of the draw, not of w*."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ppl_bif.pyro import localize
from ppl_bif.pyro.gradients import Data, Gradients


class Blocks(nn.Module):
    """Two blocks, checkpointed or not."""

    def __init__(self, checkpointed):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)) for _ in range(2)
        )
        self.checkpointed = checkpointed

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return x


def slopes(model, batch, scale=0.3):
    torch.manual_seed(1)
    moved = {n: (w + scale * torch.randn_like(w)).unsqueeze(0) for n, w in model.mode.items()}
    return Gradients(model)(moved, Data.of(batch))


def assert_same(one, other):
    for name, slope in one[0].items():
        torch.testing.assert_close(slope, other[0][name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one[1], other[1])


def test_a_module_that_checkpoints_has_the_slope_of_the_draw():
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    plain, again = (
        localize(Blocks(kept), likelihood="categorical", localization=1.0) for kept in (False, True)
    )
    assert_same(slopes(plain, (x, y)), slopes(again, (x, y)))


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "GPTNeoX"])
def test_a_network_of_hugging_face_checkpoints_if_told_to(kind):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        **({} if kind == "GPT2" else {"intermediate_size": 64}),
        bos_token_id=0,
        eos_token_id=0,
    )
    name = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    torch.manual_seed(0)
    network = getattr(transformers, name)(config).eval()
    told = copy.deepcopy(network)
    told.activation_checkpointing_enable()
    ids = np.random.default_rng(0).integers(40, size=(3, 9))
    batch = {"input_ids": torch.from_numpy(ids[:, :-1]), "labels": torch.from_numpy(ids[:, 1:])}
    plain, again = (localize(one, likelihood="tokens", localization=1.0) for one in (network, told))
    assert_same(slopes(plain, batch, 0.02), slopes(again, batch, 0.02))
    assert again.memory_per_row(batch) < 0.6 * plain.memory_per_row(batch)
    assert not told.training
