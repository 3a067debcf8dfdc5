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
# # Gallery
#
# Queries beside the training rows that speak most for and most against them, with scores and errors.
# Pictures of [dogs](who_taught_this_dog.md) and [words](which_token.md) have pages of their own; here
# are digits, and two things to look for: where a mistake comes from, and labels that are wrong.
#
# One run on this page: 700 training digits, 14 of which were given another label, without the
# network being told.

# %%
import jax
import numpy as np

import ppl_bif as bif
from ppl_bif.evaluation import detection, flip_labels
from ppl_bif.numpyro import localize
from ppl_bif_models import digits, digits_jax

data = digits.load()
x = data.train_x[:700]
labels, wrong = flip_labels(data.train_y[:700], 0.02, seed=1)

network = digits_jax.mlp
params = digits_jax.train(network, digits_jax.init_mlp(jax.random.key(0)), x, labels)
guesses = np.asarray(network(params, data.query_x)).argmax(axis=1)
misread = np.flatnonzero(guesses != data.query_y)
well = np.flatnonzero(guesses == data.query_y)
chosen = np.concatenate([misread[:4], well[:3]])
print(f"{len(misread)} of {len(guesses)} test digits are misread")

idata = bif.sample(
    localize(network, params, likelihood="categorical"),
    train=(x, labels),
    query=(data.query_x[chosen], data.query_y[chosen]),
    chains=4,
    draws=500,
    seed=0,
    constant_data={
        "train_image": (("train", "y", "x"), x.reshape(-1, 8, 8)),
        "query_image": (("query", "y", "x"), data.query_x[chosen].reshape(-1, 8, 8)),
        "query_prediction": ("query", guesses[chosen]),
    },
)
check = bif.diagnose(idata)
best = bif.top(bif.influence(idata), k=5)

# %% [markdown]
# ## Misread
#
# The label below a digit is what it is, and the guess what it was taken for. On the right stand the
# training digits that lower the true label: they taught the mistake.

# %%
bif.plot_top(best, query=[0, 1, 2, 3], idata=idata)

# %% [markdown]
# ## Read well
#
# Of what the network has no doubt about there is little to attribute. Grey is what these draws do
# not tell from 0.

# %%
bif.plot_top(best, query=[4, 5, 6], idata=idata)

# %% [markdown]
# ## Wrong labels
#
# A wrong label is explained by nothing but itself: its influence on its own log-likelihood is large.
# Sorted by it, how early do the 14 come?

# %%
among = bif.influence(idata, query="train_obs")
itself = np.diagonal(among["influence"])
order = np.argsort(-itself)
found = detection(itself, wrong)
print(
    f"AUROC {float(found['auroc']):.3f} ({float(found['auroc_low']):.3f} ... {float(found['auroc_high']):.3f})"
)
print(f"wrong among the first 14: {wrong[order[:14]].sum()}")
for row in order[:4]:
    told = f", is a {data.train_y[row]}" if wrong[row] else ", which it is"
    print(f"row {row}: taught as a {labels[row]}{told}")

# %% [markdown]
# The four most suspected, as queries of their own, with the label they were taught as. Each speaks
# for itself, ten times more than any other row does; against it speak mostly digits of the class
# that it really is.

# %%
pictures = x.reshape(-1, 8, 8)
bif.plot_top(among, query=order[:4], train_images=pictures, query_images=pictures)
