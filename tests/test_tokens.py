"""Scores of tokens, rows, documents and spans: what they are the sums of, and where they stand."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import ppl_bif as bif
from ppl_bif.schema import inference_data
from ppl_bif.text import IGNORED, encode
from tests.words import Words, run_of

WORDS = ["in", "the", "beginning", "god", "created", "heavens", "and", "earth", "was", "without"]
WORDS += ["form", "void"]
TOKENIZER = Words(WORDS)


TEXTS = {
    "a": "in the beginning god created the heavens and the earth",
    "b": "the earth was without form",
    "c": "god created void and form",
}


def run(text, query):
    """Make a run with these rows, of noise that hangs together."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(2, 2000, 1, 1))
    sides = {"train": text, "query": query}
    return run_of(sides, lambda rows: common + rng.normal(size=(2, 2000, *rows.targets.shape)), 3.0)


@pytest.fixture(scope="module")
def text():
    return encode(TOKENIZER, TEXTS, length=4)


@pytest.fixture(scope="module")
def idata(text):
    return run(text, encode(TOKENIZER, {"q": TEXTS["b"]}, length=8))


def series(idata, side):
    """Return the log-likelihoods of tokens that count, ``(chain, draw, token)``."""
    counted = idata["constant_data"][f"{side}_target"].values != IGNORED
    return idata["log_likelihood"][f"{side}_obs"].values[:, :, counted]


def test_scores_of_tokens_are_their_covariances(idata):
    scores = bif.influence(idata, by="token", shrink=None)
    sides = {side: series(idata, side) for side in ("train", "query")}
    rows = {f"{side}_obs": (("chain", "draw", side), v) for side, v in sides.items()}
    flat = inference_data({"log_likelihood": xr.Dataset(rows)}, {"inverse_temperature": 3.0})
    alike = bif.influence(flat, shrink=None)
    for name in ("influence", "mcse", "resolved"):
        np.testing.assert_allclose(scores[name], alike[name], rtol=1e-9)
    train, query = (v - v.mean(axis=1, keepdims=True) for v in sides.values())
    # What a chain's own mean hides is estimated from its blocks, hence not to the last digit.
    truth = 3 * np.einsum("cdq,cdt->qt", query, train) / (query.shape[0] * (query.shape[1] - 1))
    np.testing.assert_allclose(scores["influence"], truth, atol=0.02)
    words = " ".join(" ".join(TEXTS[name].split(" ")[1:]) for name in TEXTS)
    assert " ".join(scores["train_token"].values) == words
    one = scores.isel(train=4)
    assert (one["train_row"], one["train_document"], one["train_position"]) == ("a#1", "a", 0)
    place = slice(int(one["train_start"]), int(one["train_stop"]))
    assert TEXTS["a"][place] == one["train_token"]


@pytest.mark.parametrize("by", ["sequence", "document"])
def test_sums_of_tokens_are_rows_and_documents(idata, by):
    each = bif.influence(idata, by={"train": "token", "query": "sequence"}, shrink=None)
    whole = bif.influence(idata, by={"train": by}, shrink=None)
    name = "train_row" if by == "sequence" else "train_document"
    summed = each["influence"].groupby(name).sum().rename({name: "train"})
    np.testing.assert_allclose(summed.sel(train=whole["train"]), whole["influence"], rtol=1e-9)
    counts = each["influence"].groupby(name).count().rename({name: "train"})
    mean = bif.influence(idata, by={"train": by, "query": "token"}, reduce="mean", shrink=None)[
        "influence"
    ].sum("query")
    np.testing.assert_allclose(mean, (whole["influence"] / counts).sel(train=mean["train"])[0])


def test_spans_are_the_tokens_that_lie_in_them(idata):
    start = TEXTS["a"].index("created")
    spans = {"train": [("a", start, start + len("created the"), "verb"), ("b", 4, 9)]}
    scores = bif.influence(idata, by={"train": "span", "query": "token"}, spans=spans, shrink=None)
    assert scores["train"].values.tolist() == ["verb", "b[4:9]"]
    each = bif.influence(idata, by="token", shrink=None)
    inside = np.isin(each["train_start"], [start, start + 8]) & (each["train_document"] == "a")
    np.testing.assert_allclose(
        scores["influence"].sel(train="verb"), each["influence"].sel(train=inside).sum("train")
    )
    with pytest.raises(ValueError, match=r"train \('a', 0, 2\) holds no token"):
        bif.influence(idata, by={"train": "span"}, spans={"train": [("a", 0, 2)]})
    with pytest.raises(ValueError, match="needs spans"):
        bif.influence(idata, by="span")


def test_lists_say_what_their_tokens_are(idata):
    best = bif.top(idata, k=3, by="token", shrink=None)
    same = bif.top(bif.influence(idata, by="token", shrink=None), k=3)
    xr.testing.assert_allclose(best, same)
    assert best["train_token"].dims == ("query", "direction", "rank")
    assert best["query_token"].values[0] == "earth"


def test_what_has_no_tokens_is_refused(idata):
    one = xr.Dataset(
        {"y": (("chain", "draw", "row"), np.random.default_rng(0).normal(size=(2, 9, 3)))}
    )
    with pytest.raises(ValueError, match="needs log-likelihoods of tokens"):
        bif.influence({"log_likelihood": one}, by="token")
    with pytest.raises(ValueError, match="by must be one of"):
        bif.influence(idata, by="word")


@settings(deadline=None, max_examples=60)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=2, max_size=30),
    length=st.integers(2, 12),
    overlap=st.integers(0, 11),
)
def test_each_token_of_a_document_is_predicted_once(words, length, overlap):
    overlap %= length
    text = encode(TOKENIZER, {"d": " ".join(words)}, length=length, overlap=overlap)
    counted = text.targets != IGNORED
    assert text.targets[counted].tolist() == [WORDS.index(word) for word in words[1:]]
    whole = " ".join(words)
    starts, stops = (text.about[name][counted] for name in ("token_start", "token_stop"))
    assert [whole[a:b] for a, b in zip(starts, stops, strict=True)] == words[1:]
    for row, origin in enumerate(text.about["text_start"]):
        mine = text.about["text"][row]
        assert whole[origin : origin + len(mine)] == mine
        for place in np.flatnonzero(counted[row]):
            assert text.inputs[row, place] == WORDS.index(
                words[whole[: text.about["token_start"][row, place]].count(" ") - 1]
            )


def test_only_the_response_counts():
    asked = {"q": "god created the earth", "r": "the earth was void"}
    text = encode(TOKENIZER, asked, length=8, counted={"q": [(12, 99)]})
    assert (text.targets != IGNORED).sum(axis=1).tolist() == [2, 3]
    with pytest.raises(ValueError, match="not there"):
        encode(TOKENIZER, asked, length=8, counted={"x": [(0, 1)]})
    with pytest.raises(ValueError, match="no token of document 'q' counts"):
        encode(TOKENIZER, asked, length=8, counted={"q": [(50, 60)]})
    with pytest.raises(ValueError, match="overlap must lie between"):
        encode(TOKENIZER, asked, length=2, overlap=2)
