# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which token taught it this token?
#
# A small GPT has read the Bible in English and in French, verse by verse, each verse in both
# languages. Its tokens know nothing of each other: "she" and "elle" are two numbers. Does the model
# owe its English "she" to the French "elle" in *other* verses? Influence, token by token, can say.
#
# The network has 1.1 million weights, four blocks and 2,048 pieces of words; it comes with
# `ppl_bif_models`, and `python -m ppl_bif_models.verses` trains it again in half an hour.

# %%
import numpy as np
import torch
from matplotlib import pyplot as plt

import ppl_bif as bif
from ppl_bif.pyro import UnderdampedLangevin, localize
from ppl_bif_models import verses

torch.set_num_threads(1)
network = verses.network()
some = verses.excerpt()
print(verses.document(some[3]))

# %% [markdown]
# ## Rows of tokens
#
# `encode` turns documents into rows: ids to read, the id that comes next at each place, and where
# each of these stands in its document. Long documents are cut, with some context carried over;
# `counted=` keeps only a response. Any tokenizer of `tokenizers` or `transformers` will do.
#
# Two dozen verses that the model was trained on, and six that it never saw.

# %%
from ppl_bif.text import encode


def rows_of(chosen, more=None, counted=None):
    texts = {verse.place: verses.document(verse) for verse in chosen} | (more or {})
    return encode(verses.tokenizer(), texts, length=verses.SHAPE.context, counted=counted)


def holds(verse, english, french):
    return english in verse.en.split() and french in verse.fr.split() and len(verse.en) < 130


she = [verse for verse in some if holds(verse, "she", "elle")]
king = [verse for verse in some if holds(verse, "king", "roi")]
train = rows_of([v for v in she + king if verses.part(v) != verses.KEPT][:24])

# %% [markdown]
# A query need be no document of anybody's: beside the six verses, three ways in which one might go
# on. Of these, only what comes after the prompt counts.

# %%
prompt = "<en> The king said to her,"
ways = {f"... {way}": f"{prompt} {way}" for way in ("Bring it here.", "Sing to Yahweh!", "No.")}
counted = {name: [(len(prompt), len(text))] for name, text in ways.items()}
unseen = [v for v in she if verses.part(v) == verses.KEPT][:6]
query = rows_of(unseen, ways, counted)
print(train.inputs.shape, query.inputs.shape)

# %% [markdown]
# ## Sample the blocks, nearly freely
#
# Two settings matter for text. *Which weights*: the embedding is also what logits are formed with,
# and there translations are rivals, more of one is less of the other; what the languages share is
# in the blocks, so these are sampled. *How stiff*: with the true posterior, at
# `inverse_temperature=1`, the directions that languages share are the stiffest and hardly move. A
# hot posterior, held together by its prior, lets them: its `localization` raises the loss by about
# a tenth of a nat. Gradients come from a fixed partition of the verses, each less its own gradient
# at the trained weights, so that the trained weights stay the mode.

# %%
model = localize(
    network,
    likelihood="tokens",
    sites="blocks.*",
    localization=1e4,
    inverse_temperature=1 / 16,
)
kernel = UnderdampedLangevin(
    model,
    gradient="partition",
    batch_size=8,
    steps_per_draw=3,
    step_size=0.008,
    friction=100.0,
    preconditioner=None,
)
idata = bif.sample(
    kernel,
    train=train.batch,
    query=query.batch,
    train_ids=train.ids,
    query_ids=query.ids,
    constant_data=train.constant("train") | query.constant("query"),
    chains=2,
    draws=40,
    warmup=20,
    seed=0,
    progress=False,
)
idata["log_likelihood"]

# %% [markdown]
# ## Scores of tokens, of verses, of words
#
# `by=` says what is scored. `"token"` gives every pair of tokens, with the words as coordinates;
# another choice for each side asks which *verses* taught a *token*; spans are characters of a
# document.

# %%
scores = bif.influence(idata, by="token", kind="correlation")
scores

# %%
asked = scores["query_token"].values == " she"
best = bif.top(scores.isel(query=asked), k=5)
for name in ("train_token", "train_document", "influence", "mcse", "resolved"):
    print(name, best[name].values[0, 0])

# %%
verse_scores = bif.influence(idata, by={"query": "token"}, kind="correlation")
print(verse_scores.sizes)
place = verses.document(next(v for v in some if v.place == query.ids[0])).index(" she")
spans = {"query": [(query.ids[0], place, place + 4, "she")]}
print(bif.influence(idata, by={"query": "span"}, spans=spans, kind="correlation").sizes)

# %% [markdown]
# Completions of one prompt are explained under one posterior, so their scores may be compared.

# %%
completions = bif.influence(idata, kind="correlation").sel(query=list(ways))
best = bif.top(completions, k=2)
for name, one in best.groupby("query"):
    print(name)
    for way, row in one.squeeze("query").groupby("direction"):
        row = row.squeeze("direction")
        listed = zip(row["train"].values, row["influence"].values, row["mcse"].values, strict=True)
        print(f"  {way}:", ", ".join(f"{verse} {r:+.2f} ± {e:.2f}" for verse, r, e in listed))

# %% [markdown]
# Both sides may be the same: what do the tokens of one verse do to each other? Shown is what lies
# beyond two errors, without the diagonal, which is 1. One pair in twenty does so by chance, and after
# 80 draws there is little more than that.

# %%
within = bif.influence(idata, train="train_obs", query="train_obs", by="token", kind="correlation")
verse = train.ids[0]
own = within.isel(
    train=within["train_document"].values == verse, query=within["query_document"].values == verse
)
fig, panel = plt.subplots(figsize=(7, 6.2), layout="constrained")
shown = own["influence"].where(own["resolved"] & (own["query"] != own["train"]))
picture = panel.imshow(shown, cmap="PuOr_r", vmin=-0.6, vmax=0.6)
panel.set_xticks(range(own.sizes["train"]), own["train_token"].values, rotation=90, fontsize=7)
panel.set_yticks(range(own.sizes["query"]), own["query_token"].values, fontsize=7)
panel.set(title=f"{verse}: correlations of its own tokens")
_ = fig.colorbar(picture, shrink=0.6, label="correlation")

# %% [markdown]
# Is any of it true? Hardly: 80 draws leave an error of .1 on every correlation of tokens, most of
# which are a few hundredths, and `resolved` says so. Averages over many pairs settle much sooner
# than single ones.

# %%
known = scores["train_token"].values == " elle"
row = scores["influence"].values[asked].mean(axis=0)
percentile = row.argsort().argsort()[known].mean() / (len(row) - 1)
print(f"mean error of a token's score: {float(scores['mcse'].mean()):.3f}")
print(f"mean percentile of 'elle' among all tokens, for 'she': {percentile:.2f}")

# %% [markdown]
# ## A longer run
#
# 120 verses, 80 unseen ones, two runs of two chains: `python -m benchmarks.tokens.sample`, four and
# a half minutes on a GPU that does other work too. What is kept of it here are the scores of
# sixteen query tokens, and the mean scores of eight words and their translations on each other.

# %%
kept = np.load("data/verses/scores.npz")
english = ["she", "he", "God", "king", "people", "son", "house", "day"]
french = ["elle", "il", "Dieu", "roi", "peuple", "fils", "maison", "jour"]
print(f"{int(kept['draws']):,} draws")
for at, (word, other) in enumerate(zip(english, french, strict=True)):
    for way, (a, b) in enumerate(((word, other), (other, word))):
        rank, types, _ = kept["rank"][2 * at + way]
        print(
            f"{a:>8} <- {b:8} percentile {kept['percentile'][2 * at + way]:.2f}, "
            f"rank {rank} of {types} words"
        )

# %%
fig, panels = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for panel, matrix, asked_words, taught in zip(
    panels, kept["matrix"], (english, french), (french, english), strict=True
):
    scaled = matrix / np.abs(matrix).max(axis=1, keepdims=True)
    panel.imshow(scaled, cmap="PuOr_r", vmin=-1, vmax=1)
    panel.set_xticks(range(8), taught, rotation=45)
    panel.set_yticks(range(8), asked_words)
    panel.set_xlabel("training tokens")
    panel.set_ylabel("query tokens, of verses never seen")
_ = fig.suptitle("Mean influence of each word on each, by row", fontsize=11)

# %% [markdown]
# The diagonal is the dictionary that the model has learned. Single tokens have larger
# errors: how many of a query token's 7,828 scores are beyond chance, at a false discovery rate of
# 5%?

# %%
from ppl_bif.discoveries import benjamini_hochberg

found = benjamini_hochberg(kept["score"].astype(float), kept["error"].astype(float), 0.05, 64)
for at in range(0, 16, 2):
    print(f"{english[at // 2]:>8}: {found[at].sum():5d} of {found.shape[1]:,} tokens are resolved")

# %% [markdown]
# ## Point at a token
#
# `bif.write_explorer(idata, "page.html")`, or `ppl-bif report RUN --html page.html`, writes a page
# that needs nothing else: choose a token, and the others are coloured by what they taught it; what
# is not resolved stays pale.
#
# ![The explorer](../assets/explorer.png)
