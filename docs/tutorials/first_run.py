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
# # Ten minutes in NumPyro
#
# A small network learns to read digits. We pick test digits, one that it gets wrong among them, and
# ask which training images raise and which lower its log-likelihood of the true label. Everything
# below ran when this page was built.

# %%
import jax
import numpy as np

import ppl_bif as bif
from ppl_bif.numpyro import localize
from ppl_bif_models import digits, digits_jax

# %% [markdown]
# ## A trained network
#
# The 8 by 8 digits of scikit-learn; the last 360 are kept for queries. The network is a plain
# function of its parameters: any pure `apply(params, x)` will do, and so will flax and equinox.

# %%
data = digits.load()
network = digits_jax.mlp
params = digits_jax.train(network, digits_jax.init_mlp(jax.random.key(0)), *data.train)

predicted = np.asarray(network(params, data.query_x)).argmax(axis=1)
wrong = np.flatnonzero(predicted != data.query_y)
print(f"{len(data.train_y)} training rows, {len(wrong)} of {len(data.query_y)} test digits wrong")

# %% [markdown]
# We explain two digits it reads wrongly and three it reads well.

# %%
right = np.flatnonzero(predicted == data.query_y)
chosen = np.concatenate([wrong[:2], right[:3]])
for row in chosen:
    print(f"id {data.query_ids[row]}: is {data.query_y[row]}, read as {predicted[row]}")

# %% [markdown]
# ## The posterior around the trained weights
#
# `localize` gives an ordinary NumPyro model: a Gaussian prior around the trained weights, and the
# likelihood of all training rows. `sample` draws from it. Nothing has to be tuned: warm-up chooses
# how tight the prior is, the kernel, its step, and the steps between two draws. The pictures go
# along as constant data, so that plots and reports can show them.

# %%
pictures = data.pictures()
dims, query_pictures = pictures["query_image"]
pictures["query_image"] = (dims, query_pictures[chosen])

# --8<-- [start:sample]
model = localize(network, params, likelihood="categorical")
idata = bif.sample(
    model,
    train=(data.train_x, data.train_y),
    query=(data.query_x[chosen], data.query_y[chosen]),
    train_ids=data.train_ids,
    query_ids=data.query_ids[chosen],
    chains=4,
    draws=500,
    seed=0,
    store="digits.zarr",
    constant_data=pictures,
)
# --8<-- [end:sample]

# %% [markdown]
# Each choice is kept with its reason. Localization is part of the question, so name it with your
# scores.

# %%
for line in idata.attrs["tuning"]:
    print(line)

# %% [markdown]
# What came out is InferenceData with the log-likelihood of every row at every draw.

# %%
idata["log_likelihood"]

# %% [markdown]
# ## First, should we believe it?
#
# The verdict comes before any score. Each line has its threshold, and
# [Gotchas](../gotchas.md) says what to do about each.

# %%
check = bif.diagnose(idata)

# %%
bif.plot_diagnosis(check, idata)

# %% [markdown]
# ## Scores
#
# One score for each pair, with its Monte Carlo error. **Positive: more weight on the training row
# raises the log-likelihood of the query's true label.** The unit is nats per unit of weight.

# %%
# --8<-- [start:scores]
scores = bif.influence(idata)
# --8<-- [end:scores]
scores

# %% [markdown]
# ## What raises, what lowers
#
# `top` keeps the extremes of each query. It picks among more than a thousand rows, so it asks more
# of them than two errors: `resolved` holds the false discovery rate at 5% over all rows of a query.

# %%
# --8<-- [start:top]
best = bif.top(scores, k=5)
# --8<-- [end:top]
best.isel(query=0, direction=0).to_dataframe()[["train", "influence", "mcse", "resolved"]]

# %%
bif.plot_top(best, idata=idata)

# %% [markdown]
# Left, the query. Then the images that raise it, mostly the same digit in a similar hand; then
# those that lower it, often another digit drawn like this one. For a misread digit the second group
# shows what it was mistaken for.
#
# **An image that is greyed is unresolved**: with these draws we cannot tell its score from 0, so
# neither its sign nor its place in the row means much. That is common for digits that the network
# reads with no doubt: their log-likelihood hardly moves, and there is little to attribute.
#
# How do all these queries and the rows that matter most to them hang together? `plot_heatmap` takes
# the strongest rows, here sorted by the digit they are. Correlations have one scale for all queries,
# those read with no doubt among them.

# %%
correlations = bif.influence(idata, kind="correlation")
kinds = {"train": data.train_y, "query": data.query_y[chosen]}
cells = bif.plot_heatmap(correlations, k=30, labels=kinds)

# %%
share = best["resolved"].mean(("direction", "rank"))
for row, resolved in zip(chosen, share.values, strict=True):
    verdict = "read wrong" if row in wrong else "read right"
    print(f"id {data.query_ids[row]} ({verdict}): {100 * resolved:.0f}% of ranks resolved")

# %% [markdown]
# More draws shrink the errors with the square root of their number.
# [Few draws, settled ranks](few_draws.md) shows what that means for the top of a list.

# %% [markdown]
# ## To keep and to hand on
#
# The run is on disk, and `write_report` writes one self-contained HTML file from it. From a shell,
# `ppl-bif report digits.zarr` does the same.

# %%
bif.write_report(bif.open_store("digits.zarr"), "digits.html").name
