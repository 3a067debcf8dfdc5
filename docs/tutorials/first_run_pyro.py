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
# # Ten minutes in Pyro
#
# A network in PyTorch has learnt to read digits. Which training images are behind what it makes of
# five test images, two of which it gets wrong? Everything below ran when this page was built.
# [The same in NumPyro](first_run.md) looks closer at each step.

# %%
import numpy as np
import torch

import ppl_bif as bif
from ppl_bif.pyro import SGLD, localize
from ppl_bif_models import digits, digits_torch

torch.set_num_threads(1)
data = digits.load()
net = digits_torch.train(digits_torch.mlp(), *data.train)  # any torch.nn.Module, trained any way

with torch.no_grad():
    guesses = net(torch.as_tensor(data.query_x)).argmax(dim=1).numpy()
wrong = np.flatnonzero(guesses != data.query_y)
chosen = np.concatenate([wrong[:2], np.flatnonzero(guesses == data.query_y)[:3]])
print(f"{len(wrong)} of {len(guesses)} test digits are read wrongly")

# %% [markdown]
# ## Sample
#
# `localize` wraps the network, and leaves it as it is. `sample` tunes itself, draws from the
# posterior around the trained weights, and stores the log-likelihood of every row at every draw.

# %%
# --8<-- [start:sample]
model = localize(net, likelihood="categorical")
idata = bif.sample(
    model,
    train=(data.train_x, data.train_y),
    query=(data.query_x[chosen], data.query_y[chosen]),
    draws=250,
    store="digits.zarr",
)
# --8<-- [end:sample]

# %% [markdown]
# ## Should we believe it?

# %%
check = bif.diagnose(idata)

# %% [markdown]
# ## What raises, what lowers
#
# One score for each pair of a query and a training row, with its error. Where a picture is grey, the
# draws do not tell its score from 0.

# %%
# --8<-- [start:scores]
scores = bif.influence(idata)  # xarray, (query, train)
best = bif.top(scores, k=5)
# --8<-- [end:scores]
bif.plot_top(
    best,
    idata=idata,
    train_images=data.train_x.reshape(-1, 8, 8),
    query_images=data.query_x[chosen].reshape(-1, 8, 8),
)

# %%
best.isel(query=0, direction=0).to_dataframe()[["train", "influence", "mcse", "resolved"]]

# %% [markdown]
# ## It is a Pyro model
#
# Handlers, NUTS, SVI and `Predictive` take it like any other; weights are its sites, and the
# trained network is not touched.

# %%
import pyro

small = localize(net, likelihood="categorical", localization=100.0)
three = (torch.as_tensor(part[:3]) for part in data.train)
trace = pyro.poutine.trace(small).get_trace(*three)
trace.compute_log_prob()
print(trace.format_shapes())

# %% [markdown]
# Each choice of warm-up can be made by hand, and a kernel takes the place of the model in `sample`.
# Where a gradient of all rows is too much, minibatches do. What would a run of them cost?

# %%
kernel = SGLD(small, step_size=1e-5, batch_size=128, steps_per_draw=20)
print(bif.forecast(kernel, train=data.train, query=data.query, draws=1000))

# %% [markdown]
# [Concepts](../concepts.md) has the words, [Few draws, settled ranks](few_draws.md) says how far to
# trust a list, and `bif.write_report` or `ppl-bif report digits.zarr` writes a page to hand on.
