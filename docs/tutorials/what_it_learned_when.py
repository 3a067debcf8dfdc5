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
# # What it learned when
#
# A network is trained, and at some epochs its weights are kept. Which rows taught it a digit early,
# which late? How many of its weights do the data hold by then? Which digits does it hold by the
# same weights? Every number and picture below was made when this page was built.

# %%
import jax
import numpy as np
from scipy.stats import spearmanr

import ppl_bif as bif
from ppl_bif.numpyro import UnderdampedLangevin, localize
from ppl_bif_models import digits, digits_jax

data = digits.load()
network = digits_jax.mlp
half = slice(None, None, 2)  # every other row, to be quick
x, y, ids = data.train_x[half], data.train_y[half], data.train_ids[half]

epochs = digits_jax.over_epochs(network, digits_jax.init_mlp(jax.random.key(0)), x, y)
weights = {epoch: jax.tree.map(lambda w, at=epoch - 1: w[at], epochs) for epoch in (1, 3, 8, 30)}
read = {epoch: np.asarray(network(w, data.query_x)).argmax(axis=1) for epoch, w in weights.items()}
for epoch, digit in read.items():
    print(f"epoch {epoch:2}: {np.mean(digit != data.query_y):.0%} of the test digits are misread")

# %% [markdown]
# ## One question at every checkpoint
#
# Only the weights are to differ between checkpoints. So `over_checkpoints` takes the same data,
# seed and settings for all, and refuses models that differ in more. Localization and inverse
# temperature are part of the question. We take β = 1 / log n, Watanabe's for the learning
# coefficient, and a localization that keeps the draws near by. With `store=`, each checkpoint is
# kept as it is finished.
#
# Two things are asked of the same runs: influences, and the learning coefficient.

# %%
question = {"localization": 200.0, "inverse_temperature": 1 / np.log(len(y))}
models = {
    epoch: UnderdampedLangevin(
        localize(network, w, likelihood="categorical", **question), preconditioner=None
    )
    for epoch, w in weights.items()
}
shown = np.flatnonzero((read[1] != data.query_y) & (read[30] == data.query_y))[:2]
shown = np.append(shown, np.flatnonzero(read[30] != data.query_y)[:1])
pictures = {
    "train_image": (("train", "y", "x"), x.reshape(-1, 8, 8)),
    "query_image": (("query", "y", "x"), data.query_x[shown].reshape(-1, 8, 8)),
}
found = bif.over_checkpoints(
    models,
    estimate={"scores": bif.influence, "learning": bif.learning_coefficient},
    train=(x, y),
    query=(data.query_x[shown], data.query_y[shown]),
    train_ids=ids,
    query_ids=data.query_ids[shown],
    constant_data=pictures,
    chains=4,
    draws=100,
    seed=0,
    store="checkpoints",
)
scores = found["scores"]
print(dict(scores.sizes), "left out:", scores.attrs["left_out"])

# %% [markdown]
# The runs themselves are in their stores. Is the last one to be believed?

# %%
runs = {epoch: bif.open_store(f"checkpoints/{epoch}.zarr") for epoch in (1, 30)}
check = bif.diagnose(runs[30])

# %% [markdown]
# ## Which rows taught it a digit, and when
#
# We explain three test digits: two that are misread after the first epoch and read well at the end,
# and one that is still misread at the end.

# %%
for row in shown:
    path = " ".join(f"{epoch}: {digit[row]}" for epoch, digit in read.items())
    print(f"id {data.query_ids[row]} is {data.query_y[row]}; read as, by epoch  {path}")

# %% [markdown]
# For the first of them, the curves are of the rows that most raise and most lower it at the last
# checkpoint. A band is two errors wide on either side, and a hollow point is not resolved from 0. A
# row that was chosen because it is extreme at the last checkpoint looks a little too extreme there;
# at the others it was not chosen.


# %%
def curves(query):
    """Influences over the epochs, of the rows that are extreme at the last one."""
    best = bif.top(scores.sel(checkpoint=30, query=[query]), k=3)
    chosen = best["train"].values.ravel()
    label = dict(zip(ids.tolist(), y.tolist(), strict=True))
    names = [f"{row} (a {label[row]})" for row in chosen.tolist()]
    true = data.query_y[data.query_ids.tolist().index(query)]
    some = scores.sel(query=query, train=chosen)
    title = f"{query}, a {true}"
    bif.plot_over_checkpoints(some, labels=names, spacing="log", title=title)


curves(int(data.query_ids[shown[0]]))

# %%
curves(int(data.query_ids[shown[2]]))

# %% [markdown]
# The first of the two is read without doubt after a few epochs: its log-likelihood hardly moves any
# more, and there is little left to attribute. The digit that stays misread keeps what pulls it both
# ways.
#
# How much of it is resolved? Over all pairs of a test digit and a training row, and among the ten
# that most raise and the ten that most lower each digit.

# %%
print("epoch  pairs resolved  of the tops")
for epoch in weights:
    one = scores.sel(checkpoint=epoch)
    best = bif.top(one, k=10)["resolved"].mean()
    print(f"{epoch:5}  {float(one['resolved'].mean()):14.0%}  {float(best):11.0%}")

# %% [markdown]
# Are the rows that matter early those that matter late? Below, the rank correlation of each digit's
# scores between a checkpoint and the last one. The seed is the same at all of them, and so is much
# of the noise: a high value may be that of the noise alone, and shows nothing. A low one is a
# change.

# %%
last = scores["influence"].sel(checkpoint=30).values
for epoch in (1, 3, 8):
    one = scores["influence"].sel(checkpoint=epoch).values
    alike = [spearmanr(a, b).statistic for a, b in zip(one, last, strict=True)]
    print(f"epoch {epoch} with 30: " + "  ".join(f"{value:.2f}" for value in alike))

# %% [markdown]
# ## How many weights the data hold
#
# The local learning coefficient λ is half the number of weights that the data hold near the trained
# ones: a direction that is stiff against the localization counts 1/2, a flat one nothing.
# Everything else is held by the prior, and the two together should be near d/2 where the
# posterior is Gaussian.

# %%
learning = found["learning"]
print("epoch  coefficient ± error   held by the prior   d/2   by chain")
for epoch in weights:
    one = learning.sel(checkpoint=epoch)
    value, error = float(one["learning_coefficient"]), float(one["mcse"])
    chains = " ".join(f"{chain:6.2f}" for chain in one["chain_value"].values)
    prior = f"{float(one['held']):.0f} ± {float(one['held_mcse']):.0f}"
    print(f"{epoch:5}  {value:11.2f} ± {error:.2f}    {prior:>15}  {6570 / 2:.0f}   {chains}")

growth = bif.plot_over_checkpoints(learning, spacing="log")

# %% [markdown]
# A negative value is no learning coefficient: it says that the weights were not at a minimum, and
# that the draws found a lower loss by going downhill. This is what training still has to gain, and
# early it outweighs all else. The function warns of it. From the later epochs on the estimate is
# positive and resolved; it too is somewhat low, as training with weight decay never reaches the
# minimum of the loss itself. So read the curve as *how far from settled*, and only its end as a
# number of weights. And that number is small against 6,570 as the localization is strong: with
# another one it is another number, and only values at one localization compare.
#
# Which rows hold these weights? The parts of rows sum to the whole.

# %%
last = learning.sel(checkpoint=30)
order = np.argsort(-last["contribution"].values)
share = last["contribution"][order[:36]].sum() / last["learning_coefficient"]
print(f"the 36 rows (5%) with the largest parts carry {float(share):.0%} of it")
print("they are, by digit:", *np.bincount(y[order[:36]], minlength=10))

# %% [markdown]
# ## A map of what it holds together
#
# The loss kernel is the correlation of two rows' losses over the draws: near 1 where the network
# fits both by the same weights. Classical scaling lays the rows out so that correlated ones are
# near. Labels play no part in it but through the losses.

# %%
kernels = {epoch: bif.loss_kernel(run) for epoch, run in runs.items()}
early = bif.plot_embedding(kernels[1], y, title="Training digits after epoch 1")

# %%
late = bif.plot_embedding(kernels[30], y, title="After epoch 30")

# %% [markdown]
# Each axis says which share of all squared distance it shows, and in brackets the share along an
# axis that was found in half of the chains, seen in the other half: where the second is much
# smaller than the first, the axis is noise. Two axes show only a small part; what lies together on
# the map need not be alike. The nearest neighbours are taken from the kernel itself.

# %%
label = dict(zip(ids.tolist(), y.tolist(), strict=True))
for epoch, near in kernels.items():
    digit = np.vectorize(label.get)(near["neighbour"].values)
    same = (digit == y[:, None]).mean()
    sure = float(near["neighbour_resolved"].mean())
    print(f"epoch {epoch:2}: {same:.0%} of 10 neighbours are the same digit; {sure:.0%} resolved")

# %% [markdown]
# By chance 10% would be. That it is so clear, and so early, is less of a feat than it looks: the
# losses of a class all hang on that class's output, and whatever moves this output moves them
# together. What tells something of the network is the finer picture: which classes lie near each
# other, and which rows of a class lie outside of it.
#
# ## What was not resolved
#
# One hundred draws of four chains are few. Single influences of most rows are not known in sign,
# and a curve with hollow points tells nothing of its shape there. Curves of one seed share the
# seed's noise, so the errors of two checkpoints are not independent. Early checkpoints are no
# minima: their posterior lies downhill from the weights, and what is explained there is the network
# after some more steps as much as the network itself. More draws shrink the errors, and nothing
# else.
