"""Which weights are sampled: names, patterns and masks; the rest stay as they were trained."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ppl_bif as bif
from ppl_bif.sites import select_sites
from tests.backends import random_layers

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias", "head[0]"]


@pytest.mark.parametrize(
    ("sites", "chosen"),
    [
        (None, NAMES),
        ("*", NAMES),
        ("0.*", NAMES[:2]),
        (["2.bias", "0.bias"], ["0.bias", "2.bias"]),
        (("*.weight", "0.*"), ["0.weight", "0.bias", "2.weight"]),
        ("head[0]", ["head[0]"]),
        ({"0.weight": True, "2.bias": False}, ["0.weight"]),
        ({"head[0]": True}, ["head[0]"]),
    ],
)
def test_choices(sites, chosen):
    assert select_sites(NAMES, sites) == chosen


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ("1.*", r"sites \['1\.\*'\] match no weight of the network; it has \['0.weight'"),
        (["0.*", "weight"], r"sites \['weight'\] match no weight"),
        ({"0.*": True, "0.bias": True}, r"sites \['0\.\*'\] match no weight"),
        ({"0.bias": False}, "leave no weight to sample"),
        ([], "leave no weight to sample"),
    ],
)
def test_choices_that_match_nothing(sites, message):
    with pytest.raises(ValueError, match=message):
        select_sites(NAMES, sites)


@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_names_and_masks_agree(chosen):
    kept = [name for name in NAMES if name in chosen]
    assert select_sites(NAMES, sorted(chosen)) == kept
    assert select_sites(NAMES, {name: name in chosen for name in NAMES}) == kept


def test_only_chosen_sites_move(backend):
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    y = np.arange(12) % 2
    model = backend.mlp(random_layers([3, 4, 2]), sites="*1")
    assert list(model.mode) == ["W1", "b1"]
    assert model.num_weights == 10
    idata = bif.sample(
        backend.SGLD(model, step_size=1e-3, batch_size=4),
        train=(x, y), query=(x, y), draws=3, warmup=0, chains=2, save_weights="b*",
    )  # fmt: skip
    assert list(idata["posterior"].data_vars) == ["b1"]
    assert (idata["posterior"]["b1"].std("draw") > 0).all()
