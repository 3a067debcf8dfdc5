"""The small GPT: one network in three frameworks, and what it says of verses it never saw."""

import numpy as np
import pytest

from ppl_bif_models import verses
from ppl_bif_models.gpt_recipe import Shape

SMALL = Shape(vocabulary=30, context=12, width=16, layers=2, heads=2)
IDS = np.random.default_rng(0).integers(30, size=(3, 9))


def in_torch(shape):
    from ppl_bif_models.gpt_torch import gpt

    return gpt(shape, seed=1).eval()


@pytest.fixture(scope="module")
def known():
    """Weights by name, and the logits that PyTorch finds."""
    import torch

    network = in_torch(SMALL)
    with torch.no_grad():
        logits = network(torch.from_numpy(IDS)).numpy()
    return {k: v.numpy() for k, v in network.state_dict().items()}, logits


@pytest.mark.pyro
@pytest.mark.numpyro
@pytest.mark.parametrize("framework", ["flax", "equinox"])
def test_logits_agree(known, framework):
    import jax

    weights, logits = known
    if framework == "flax":
        from ppl_bif_models.gpt_flax import with_weights

        found = with_weights(SMALL, weights)(IDS)
    else:
        from ppl_bif_models.gpt_equinox import with_weights

        found = jax.vmap(with_weights(SMALL, weights))(IDS)
    np.testing.assert_allclose(found, logits, atol=2e-6)


@pytest.mark.pyro
@pytest.mark.numpyro
def test_backends_score_the_same_tokens(known):
    from ppl_bif import numpyro, pyro
    from ppl_bif_models import gpt_flax

    settings = {"likelihood": "tokens", "localization": 1e4}
    models = [
        pyro.localize(in_torch(SMALL), **settings),
        numpyro.localize(gpt_flax.with_weights(SMALL, known[0]), **settings),
    ]
    import torch

    batch = IDS[:, :-1], IDS[:, 1:]
    with torch.no_grad():
        one = models[0].log_likelihood(models[0].mode, tuple(map(torch.from_numpy, batch)))
    other = models[1].log_likelihood(models[1].mode, batch)
    assert one.shape == (3, 8)
    np.testing.assert_allclose(other, one, atol=2e-6)


@pytest.mark.pyro
def test_later_tokens_are_not_seen(known):
    import torch

    network = in_torch(SMALL)
    changed = IDS.copy()
    changed[:, 5:] = 0
    with torch.no_grad():
        found = network(torch.from_numpy(changed)).numpy()
    np.testing.assert_allclose(found[:, :5], known[1][:, :5], atol=1e-6)
    assert abs(found[:, 5:] - known[1][:, 5:]).max() > 0.01


@pytest.mark.pyro
def test_training_finds_a_rule():
    from ppl_bif_models.gpt_torch import train

    start = np.random.default_rng(1).integers(30, size=(256, 1))
    rows = (start + np.arange(10)) % 30
    network = in_torch(SMALL)
    losses = []
    train(
        network,
        rows[:, :-1],
        rows[:, 1:],
        epochs=60,
        batch=32,
        report=lambda share, loss: losses.append(loss),
    )
    assert losses[0] > 1 > 0.05 > losses[-1]


def test_verses_stand_side_by_side():
    some = verses.excerpt()
    assert len(some) > 3000
    text = verses.document(some[0])
    assert all(part in text for part in (*verses.MARKS.values(), *some[0][1:], verses.END))
    assert {verses.part(verse) for verse in some} == {0, 1}


@pytest.mark.pyro
def test_trained_weights_know_both_languages():
    pytest.importorskip("tokenizers")
    import torch
    from torch.nn.functional import cross_entropy

    text = verses.encoded([v for v in verses.excerpt() if verses.part(v) == verses.KEPT][:200])
    network = verses.network()
    x, y = (torch.from_numpy(part) for part in text.batch)
    with torch.no_grad():
        loss = float(cross_entropy(network(x).flatten(0, 1), y.flatten(), ignore_index=-100))
    assert loss < 3.9
