"""Causal language models of Hugging Face, small and with random weights."""

import warnings

import numpy as np
import pytest
import torch

import ppl_bif as bif
from ppl_bif.pyro import SGLD, localize

transformers = pytest.importorskip("transformers")

SIZE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
IDS = np.random.default_rng(0).integers(40, size=(9, 8))
QUERY = IDS[6:]


def built(kind):
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=40, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
        return transformers.GPT2LMHeadModel(config).eval()
    named = {
        "gpt_neox": ("GPTNeoX", {"tie_word_embeddings": False}),
        "llama": ("Llama", {"tie_word_embeddings": True}),
        "qwen2": ("Qwen2", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    }
    name, more = named[kind]
    config = getattr(transformers, f"{name}Config")(**SIZE, **more)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def batch(ids):
    return {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}


def sampled(network, train, query, **settings):
    model = localize(network, likelihood="tokens", localization=1e4)
    kernel = SGLD(model, step_size=1e-4, batch_size=4, steps_per_draw=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bif.sample(
            kernel,
            train=train,
            query=query,
            chains=2,
            draws=4,
            warmup=2,
            progress=False,
            **settings,
        )


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_tokens_have_the_loss_that_the_network_says(kind):
    network = built(kind)
    run = sampled(network, batch(IDS[:6]), batch(QUERY))
    ids = torch.from_numpy(QUERY)
    with torch.no_grad():
        # It shifts labels itself.
        loss = float(network(input_ids=ids, labels=ids).loss)
    assert float(run["constant_data"]["query_loss_at_mode"].mean()) == pytest.approx(loss, rel=1e-5)
    assert run["log_likelihood"]["train_obs"].dims == ("chain", "draw", "train", "train_token")
    scores = bif.influence(run, by="token", kind="correlation")
    assert scores["influence"].shape == (3 * 7, 6 * 7)


def test_padding_is_neither_seen_nor_scored():
    whole = {**batch(IDS[:6]), "attention_mask": np.ones((6, 7), int)}
    query = batch(QUERY)
    padded = {
        "input_ids": np.pad(query["input_ids"], ((0, 0), (0, 2))),
        "labels": np.pad(query["labels"], ((0, 0), (0, 2)), constant_values=-100),
        "attention_mask": np.pad(np.ones((3, 7), int), ((0, 0), (0, 2))),
    }
    network = built("llama")
    plain = sampled(network, whole, {**query, "attention_mask": np.ones((3, 7), int)})
    found = sampled(network, whole, padded)
    values = found["log_likelihood"]["query_obs"].values
    np.testing.assert_allclose(
        values[..., :7], plain["log_likelihood"]["query_obs"].values, atol=1e-4
    )
    assert (values[..., 7:] == 0).all()
    assert bif.influence(found, by="token", kind="correlation").sizes["query"] == 21


def test_labels_that_are_not_shifted_are_refused():
    unshifted = {"input_ids": IDS, "labels": IDS}
    with pytest.raises(ValueError, match=r"train targets are the inputs themselves: .*next"):
        sampled(built("llama"), unshifted, unshifted)


def test_only_the_weights_of_adapters_move():
    class Adapted(torch.nn.Module):
        """A frozen network with a low-rank addition to one of its matrices."""

        def __init__(self, network):
            super().__init__()
            self.network = network
            self.lora_A = torch.nn.Parameter(torch.randn(2, 16) / 4)
            self.lora_B = torch.nn.Parameter(torch.randn(40, 2) / 4)

        def forward(self, input_ids, attention_mask=None):
            base = self.network.model(input_ids=input_ids).last_hidden_state
            return self.network.lm_head(base) + base @ self.lora_A.T @ self.lora_B.T

    model = localize(Adapted(built("qwen2")), likelihood="tokens", sites="lora_*", localization=1e3)
    assert model.num_weights == 2 * (16 + 40)
    kernel = SGLD(model, step_size=1e-5, batch_size=4, steps_per_draw=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = bif.sample(
            kernel, train=batch(IDS[:6]), query=batch(QUERY), chains=2, draws=4, warmup=2,
            save_weights=True,
        )  # fmt: skip
    assert set(run["posterior"].data_vars) == {"lora_A", "lora_B"}


@pytest.mark.parametrize("size", ["14m", "160m", "2.8b"])
def test_pythia_has_as_many_weights_as_published(size):
    from ppl_bif_models.language import pythia

    published = {"14m": 14.07e6, "160m": 162.3e6, "2.8b": 2.775e9}
    weights = sum(w.numel() for w in pythia(size, device="meta").parameters())
    assert weights == pytest.approx(published[size], rel=0.01)


def test_a_folder_is_loaded_with_its_tokenizer(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    from ppl_bif.text import encode
    from ppl_bif_models.language import load

    known = Tokenizer(models.WordLevel({"she": 0, "went": 1, "home": 2}, unk_token="she"))
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    network = built("llama")
    network.half().save_pretrained(tmp_path)
    transformers.PreTrainedTokenizerFast(tokenizer_object=known).save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert next(loaded.network.parameters()).dtype == torch.float32
    text = encode(loaded.tokenizer, {"a": "she went home"}, length=4)
    assert text.targets.tolist() == [[1, 2]]
    with pytest.raises(OSError, match="nowhere"):
        load(tmp_path / "nowhere")


def test_rows_are_scored_so_many_at_a_time_as_their_logits_allow(monkeypatch):
    from ppl_bif import kernel

    train, query = batch(IDS[:6]), batch(QUERY)
    plain = sampled(built("llama"), train, query, chain_method="sequential")
    # Two rows of 7 tokens and 40 logits.
    monkeypatch.setattr(kernel, "LOGITS_AT_ONCE", 2 * 7 * 40)
    model = localize(built("llama"), likelihood="tokens", localization=1e4)
    assert model.logits_per_row(train) == 7 * 40
    assert (
        model.make_kernel("SGLD", batch_size=4)
        .bind({"train": train, "query": query}, evaluation_batch_size=None)
        .rows_at_once
        == 2
    )
    found = sampled(built("llama"), train, query, chain_method="sequential")
    for name in ("train_obs", "query_obs"):
        values = (run["log_likelihood"][name].values for run in (found, plain))
        np.testing.assert_allclose(*values, atol=2e-5)
