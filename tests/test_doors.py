"""Doors to other libraries: one matrix of scores is one number in ours and in theirs."""

import random
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


def loader(rows, **more):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.zeros(rows, 2), torch.zeros(rows))
    return torch.utils.data.DataLoader(data, **({"batch_size": 4} | more))


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


@pytest.mark.pyro
def test_a_loader_that_shuffles_is_refused(dattri):
    from torch.utils.data import BatchSampler, RandomSampler

    ours = dattri.BIFAttributor(SCORES)
    hidden = BatchSampler(RandomSampler(range(ROWS)), 4, drop_last=False)
    for shuffled in ({"shuffle": True}, {"batch_size": 1, "batch_sampler": hidden}):
        with pytest.raises(ValueError, match="the training loader shuffles"):
            ours.cache(loader(ROWS, **shuffled))
    with pytest.raises(ValueError, match="the query loader shuffles"):
        ours.attribute(loader(ROWS), loader(QUERIES, shuffle=True))


@pytest.mark.pyro
def test_rows_are_those_that_the_loader_gives(dattri):
    from dattri.benchmark.utils import SubsetSampler

    dattri.BIFAttributor(SCORES).cache(loader(2 * ROWS, sampler=SubsetSampler(range(ROWS))))


@pytest.mark.pyro
def test_a_truth_that_is_not_finite_is_refused(truth, dattri):
    truth["loss"][1, 0, 2] = np.nan
    with pytest.raises(ValueError, match=r"loss of queries \[2\] is not finite"):
        dattri.ground_truth(truth)
    with pytest.raises(ValueError, match=r"no 'margin'; it has \['loss'\]"):
        dattri.ground_truth(truth, output="margin")


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
def test_a_truth_that_is_not_finite_is_refused_for_quanda(truth, quanda):
    truth["loss"][1, 0, 2] = np.nan
    with pytest.raises(ValueError, match=r"loss of queries \[2\] is not finite"):
        quanda.ground_truth(truth)


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


# Sequences of tokens: 9 rows seen and 3 asked about, and two that no observable drew.
TOKENS = {"seen": np.arange(22).reshape(11, 2), "asked": np.arange(10).reshape(5, 2)}


def drawn(name, rows):
    """Draw rows as devinterp's DeterministicShuffledSampler does."""
    return random.Random(1337).sample(range(len(TOKENS[name])), rows)


def devinterp_run(losses, *, completed=1, tokens=TOKENS):
    """Lay out losses ``(chain, draw, row)`` by name as devinterp 2.0.1 does."""
    found = {}
    for name, values in losses.items():
        dim, rows = f"batch_{name}", drawn(name, values.shape[2])
        found[f"loss_{name}"] = (("chain", "draw", dim, "token_pos"), values[..., None])
        found[f"input_ids_{name}"] = ((dim, "token"), tokens[name][rows])
    sampler = {"n_beta": 40.0, "localization": 100.0, "num_draws": 50}
    attrs = {"metadata": {"config": {"sampler": sampler}}, "completed": completed}
    return xr.DataTree(xr.Dataset(found, attrs=attrs))


def losses():
    noise = RNG.normal(size=(4, 50, 9))
    return {"seen": noise, "asked": noise[..., :3] + RNG.normal(size=(4, 50, 3))}


def read(tree, **change):
    given = {"train": "seen", "query": "asked", "num_train": 20}
    given |= {"train_data": TOKENS["seen"], "query_data": TOKENS["asked"]}
    return from_devinterp(tree, **(given | change))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_influence_of_a_run_of_devinterp_is_the_covariance_of_its_losses():
    made = losses()
    scores = bif.influence(read(devinterp_run(made), query_ids=list("abcde")), shrink=None)
    scores = scores["influence"]
    rows = {name: np.sort(drawn(name, values.shape[2])) for name, values in made.items()}
    # Put in the order of the datasets, as influence has them.
    made = {n: values[..., np.argsort(drawn(n, values.shape[2]))] for n, values in made.items()}
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
    assert scores["query"].values.tolist() == [list("abcde")[row] for row in rows["asked"]]
    assert scores["train"].values.tolist() == rows["seen"].tolist()


def test_each_row_of_devinterp_is_found_in_its_dataset():
    """Its loss is one more than its number, in a tree that holds the rows shuffled."""
    sizes = {"seen": 9, "asked": 3}
    made = {name: np.ones((2, 3, 1)) * (1 + np.array(drawn(name, n))) for name, n in sizes.items()}
    datasets = {"train_data": [{"input_ids": row.tolist()} for row in TOKENS["seen"]]}
    for change in ({}, datasets):
        run = read(devinterp_run(made), **change).log_likelihood
        for side in ("train", "query"):
            found = run[f"{side}_obs"]
            assert (np.diff(found[side]) > 0).all()
            np.testing.assert_array_equal(-found[0, 0], 1 + found[side])


def test_rows_of_devinterp_that_are_the_same_are_all_drawn_or_refused():
    first, second, _ = drawn("asked", 3)
    left = min(set(range(5)) - set(drawn("asked", 3)))
    for same in (second, left):
        asked = TOKENS["asked"].copy()
        asked[same] = asked[first]
        tree = devinterp_run(losses(), tokens=TOKENS | {"asked": asked})
        if same == second:
            run = read(tree, query_data=asked).log_likelihood
            assert run["query"].values.tolist() == sorted(drawn("asked", 3))
        else:
            with pytest.raises(bif.BIFError, match=r"holds 1 of them, which cannot be told"):
                read(tree, query_data=asked)
            rest = np.delete(np.arange(5), left)
            run = read(tree, query_data=asked[rest], query_ids=rest).log_likelihood
            assert run["query"].values.tolist() == sorted(drawn("asked", 3))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (TOKENS["asked"][:2], bif.BIFError, "of 'asked' is not in query_data: pass the dataset"),
        ([[1, 2], [3, 4]], ValueError, "query_data must have input_ids"),
        ([{"input_ids": [1]}, {"input_ids": [2, 3]}], ValueError, "all of one length"),
        (np.ones((5, 2)), ValueError, r"whole numbers \(row, token\); got float64 \(5, 2\)"),
    ],
)
def test_datasets_that_the_rows_are_not_of_are_refused(data, error, message):
    with pytest.raises(error, match=message):
        read(devinterp_run(losses()), query_data=data)


def test_a_run_of_devinterp_without_its_inputs_is_refused():
    tree = devinterp_run(losses())
    del tree["input_ids_seen"]
    with pytest.raises(bif.BIFError, match="kept no 'input_ids_seen'"):
        read(tree)


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
        read(tree, query=change.get("query", "asked"))
