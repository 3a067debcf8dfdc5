"""Doors to other libraries: one matrix of scores is one number in ours and in theirs."""

import warnings

import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from ppl_bif.doors.devinterp import from_devinterp
from ppl_bif.evaluation import lds, random_subsets
from ppl_bif.schema import inference_data

ROWS, QUERIES, SUBSETS = 30, 5, 12
RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(QUERIES, ROWS))


@pytest.fixture
def truth():
    masks = random_subsets(ROWS, SUBSETS)
    loss = -(masks @ SCORES.T)[:, None] + RNG.normal(size=(SUBSETS, 2, QUERIES))
    return xr.Dataset(
        {"loss": (("subset", "seed", "query"), loss), "mask": (("subset", "train"), masks)}
    )


def loader(rows):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.zeros(rows, 2), torch.zeros(rows))
    return torch.utils.data.DataLoader(data, batch_size=4)


@pytest.fixture
def dattri():
    pytest.importorskip("dattri")
    with warnings.catch_warnings():
        # What it imports is deprecated here and there.
        warnings.simplefilter("ignore")
        from ppl_bif.doors import dattri
    return dattri


@pytest.mark.pyro
def test_lds_is_that_of_dattri(truth, dattri):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dattri.metric import lds as theirs
    attributor = dattri.BIFAttributor(SCORES)
    attributor.cache(loader(ROWS))
    scores = attributor.attribute(loader(ROWS), loader(QUERIES))
    assert scores.shape == (ROWS, QUERIES)
    found, _ = theirs(scores, dattri.ground_truth(truth))
    np.testing.assert_allclose(found.numpy(), lds(SCORES, truth)["lds"], atol=1e-12)


@pytest.mark.pyro
def test_rows_that_do_not_fit_are_refused(truth, dattri):
    with pytest.raises(ValueError, match="30 training rows, the loader 29"):
        dattri.BIFAttributor(SCORES).cache(loader(ROWS - 1))
    truth["mask"][0, :] = True
    with pytest.raises(ValueError, match="subsets of one size"):
        dattri.ground_truth(truth)


def pictures(rows):
    torch = pytest.importorskip("torch")
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))
    return x, torch.arange(rows) % 3


@pytest.fixture
def quanda():
    pytest.importorskip("quanda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ppl_bif.doors import quanda
    return quanda


def explainer(quanda, scores=SCORES, **more):
    import torch

    train = torch.utils.data.TensorDataset(*pictures(ROWS))
    return quanda.BIFExplainer(torch.nn.Linear(4, 3), train, scores, pictures(QUERIES), **more)


@pytest.mark.pyro
def test_lds_is_that_of_quanda(truth, quanda):
    import torch
    from quanda.metrics.ground_truth import LinearDatamodelingMetric

    ours = explainer(quanda)
    x, y = pictures(QUERIES)
    rows, values = quanda.ground_truth(truth)
    metric = LinearDatamodelingMetric(
        ours.model,
        torch.utils.data.TensorDataset(*pictures(ROWS)),
        subset_ids=rows,
        m=SUBSETS,
        subset_ckpt_filenames=[""] * SUBSETS,
    )
    metric.update(ours.explain(x, y), y, x, subset_logits=values)
    assert metric.compute()["score"] == pytest.approx(float(lds(SCORES, truth)["lds"].mean()))


@pytest.mark.pyro
def test_rows_of_quanda_are_found_by_what_they_hold(quanda):
    ours = explainer(quanda, self_influence=np.arange(ROWS))
    x, y = pictures(QUERIES)
    np.testing.assert_array_equal(ours.explain(x[[3, 1]], y[[3, 1]]), SCORES[[3, 1]])
    assert ours.self_influence()[7] == 7
    with pytest.raises(ValueError, match="row 0 of the test batch is none of the queries"):
        ours.explain(x + 1, y)
    with pytest.raises(ValueError, match="asked about with target 1, its scores are of 0"):
        ours.explain(x[:1], y[:1] + 1)
    with pytest.raises(ValueError, match="hand over self_influence"):
        explainer(quanda).self_influence()
    with pytest.raises(ValueError, match="the scores have 29 training rows, the dataset 30"):
        explainer(quanda, scores=SCORES[:, 1:])


def devinterp_run(losses, *, completed=1):
    """Lay out losses ``(chain, draw, row)`` by name as devinterp 2.0.1 does."""
    found = {
        f"loss_{name}": (("chain", "draw", f"batch_{name}", "token_pos"), values[..., None])
        for name, values in losses.items()
    }
    sampler = {"n_beta": 40.0, "localization": 100.0, "num_draws": 50}
    attrs = {"metadata": {"config": {"sampler": sampler}}, "completed": completed}
    return xr.DataTree(xr.Dataset(found, attrs=attrs))


def losses():
    noise = RNG.normal(size=(4, 50, 9))
    return {"seen": noise, "asked": noise[..., :3] + RNG.normal(size=(4, 50, 3))}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_influence_of_a_run_of_devinterp_is_the_covariance_of_its_losses():
    made = losses()
    run = from_devinterp(
        devinterp_run(made), train="seen", query="asked", num_train=20, query_ids=["a", "b", "c"]
    )
    scores = bif.influence(run, shrink=None)["influence"]
    dims = {"train_obs": "seen", "query_obs": "asked"}
    ours = xr.Dataset(
        {v: (("chain", "draw", v.split("_")[0]), -made[name]) for v, name in dims.items()}
    )
    # beta is n_beta over the rows: 40 / 20.
    ours = bif.influence(
        inference_data({"log_likelihood": ours}, {"inverse_temperature": 2.0}), shrink=None
    )
    np.testing.assert_allclose(scores, ours["influence"], rtol=1e-9)
    centred = [made[name] - made[name].mean(axis=1, keepdims=True) for name in ("asked", "seen")]
    covariance = 2 * np.einsum("cdq,cdt->qt", *centred) / (4 * 49)
    np.testing.assert_allclose(scores, covariance, atol=0.03)
    assert scores["query"].values.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completed": 0}, "not completed"),
        ({"query": "others"}, r"observed no 'others'; it observed \['seen', 'asked'\]"),
        ({"lost": True}, r"chains \[2\] hold no losses"),
    ],
)
def test_what_is_no_whole_run_is_refused(change, message):
    made = losses()
    if change.get("lost"):
        made["seen"][2, 30:] = 0
    tree = devinterp_run(made, completed=change.get("completed", 1))
    with pytest.raises(bif.BIFError, match=message):
        from_devinterp(tree, train="seen", query=change.get("query", "asked"), num_train=20)
