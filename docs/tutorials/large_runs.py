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
# # Very large runs
#
# A run of days is made of the same calls as one of seconds, with a few more arguments. Here they are,
# on data so small that the page runs while it is built: try yours like this first, on some hundred
# rows. The numbers of real large runs are in [Plan of scale](../scale.md).

# %%
import numpy as np
import torch

import ppl_bif as bif
from ppl_bif.plots.style import get_theme, new_figure, tidy
from ppl_bif.pyro import UnderdampedLangevin, localize
from ppl_bif_models import digits, digits_torch

torch.set_num_threads(1)
data = digits.load()
net = digits_torch.train(digits_torch.mlp(), *data.train)
with torch.no_grad():
    guesses = net(torch.as_tensor(data.query_x)).argmax(1).numpy()
wrong = np.flatnonzero(guesses != data.query_y)[:8]
rows = {
    "train": data.train,
    "query": (data.query_x[wrong], data.query_y[wrong]),
    "train_ids": data.train_ids,
    "query_ids": data.query_ids[wrong],
}
print(f"{len(data.train_y)} training rows, {len(wrong)} misread digits to explain")

# %% [markdown]
# ## Fewer weights
#
# Copies, gradients and noise of the weights that are sampled are what a chain costs in memory. With
# `sites` only some of them move, here the last layer; the others stay as trained. Scores then say what
# goes *through these weights*. Networks that do not fit even so: [Networks larger than one
# device](../sharded.md).

# %%
model = localize(net, likelihood="categorical", sites="4.*")
print(f"{model.num_weights} of {sum(w.numel() for w in net.parameters())} weights are sampled")

# %% [markdown]
# ## Settings from a short run, costs from a forecast
#
# Of more than 20,000 rows, gradients are taken of minibatches; here we ask for that, by the batches of
# a fixed partition, whose gradients at the trained weights are kept to take out most of their noise. A
# short run finds the other settings. They go into the kernel of the large run, so that this one has
# nothing to look for, and `forecast` tells from a few of its draws what it will cost.

# %%
batches = {"gradient": "partition", "batch_size": 256}
short = bif.sample(UnderdampedLangevin(model, **batches), **rows, draws=20, seed=0)
for line in short.attrs["tuning"]:
    print(line)

model = model.resolve(short.attrs["localization"])
found = {name: short.attrs[name] for name in ("step_size", "steps_per_draw")}
kernel = UnderdampedLangevin(model, **batches, **found)
print("forecast:", bif.forecast(kernel, train=rows["train"], query=rows["query"], draws=1000))

# %% [markdown]
# A draw is some steps, whose cost does not grow with the rows, and one pass over all rows to score them,
# whose cost does. So with very many rows, scoring is nearly all of it, and queries cost next to nothing:
# ask all of them at once. `evaluation_batch_size` says how many rows are scored at a time, and
# `localize(..., rows_at_once=)` how many a gradient holds; both trade speed for memory, and change no
# draw but for rounding. What else to try, and in which order: [A network that hardly
# fits](../scale.md#a-network-that-hardly-fits).
#
# ## A run that is cut short, and goes on
#
# With `store`, draws go to disk as they are made. `draws="auto"` goes on until a target is reached, here
# ranks that are expected to agree with another run's by 0.5, or until the time is up. We give it too
# little time, as a queue does that ends jobs.

# %%
large = {
    **rows,
    "chains": 4,
    "warmup": 10,
    "seed": 0,
    "store": "run.zarr",
    "constant_data": {
        "train_image": (("train", "y", "x"), data.train_x.reshape(-1, 8, 8)),
        "query_image": (("query", "y", "x"), data.query_x[wrong].reshape(-1, 8, 8)),
    },
    "evaluation_batch_size": 512,
}
target = {"rank_agreement": 0.5}
cut = bif.sample(kernel, **large, draws="auto", target=target, max_time=0.5)
print(*cut.attrs["notes"])

# %% [markdown]
# The same call without the limit finds the store, sees by its fingerprint that it is the same run, and
# goes on at the next draw. After a crash, a kill or Ctrl-C it does so too: [Runs that
# survive](../runs.md).

# %%
run = bif.sample(kernel, **large, draws="auto", target=target)
print(*run.attrs["notes"])
before, after = (r["log_likelihood"]["train_obs"] for r in (cut, run))
same = np.array_equal(before, after.isel(draw=slice(before.sizes["draw"])))
print(f"the first {before.sizes['draw']} draws are those made before: {same}")

# %% [markdown]
# While a run is made, another process may look at the draws so far: `ppl-bif follow run.zarr` in a
# shell, or `open_store`. Here it is finished.

# %%
stored = bif.open_store("run.zarr")
check = bif.diagnose(stored, verbose=False)
print("verdict:", check.attrs["verdict"])
for reason in check.attrs["reasons"]:
    print("-", reason)

# %% [markdown]
# What it says of minibatches, that they heat the chains, is better mended before a run of days than
# after it: diagnose the short run, and take a larger batch or a smaller step. Which signs to look for:
# [Choosing step size and localization](choosing_settings.md).
#
# ## The top of a list, without the matrix
#
# A million rows and ten thousand queries are $10^{10}$ pairs. `influence` then gives a lazy table, to be
# written to disk block by block. To see the top of each query it is not needed: `top` of a run reads the
# store in wide chunks, and keeps of each only what enters a list.

# %%
best = bif.top(stored, k=5, shrink=None)
by_matrix = bif.top(bif.influence(stored, shrink=None), k=5)
alike = (best["train"] == by_matrix["train"]).mean()
print(f"{float(alike):.0%} of the places are as from the matrix")
bif.plot_top(best.isel(query=slice(3)), idata=stored)

# %% [markdown]
# ## Sums in place of traces
#
# Traces grow with rows times draws. With `stream=True` a run keeps, of each training row, the sums of
# its products with the queries over some 32 blocks of draws: as many numbers after a million draws as
# after a thousand. Queries have to be known then, scores are not shrunk, and draws must be a multiple
# of the blocks of a chain.

# %%
draws = min(200, after.sizes["draw"]) // 8 * 8
streamed = bif.sample(kernel, **{**large, "store": "sums.zarr"}, draws=draws, stream=True)
sums = streamed["constant_data"]["train_sums"]
per_row = sums.size // sums.sizes["train"]
print(f"of each row, {4 * draws} values as traces of {draws} draws, {per_row} as sums")
scores = [
    bif.influence(kept, shrink=None)["influence"]
    for kept in (run.isel(draw=slice(draws)), streamed)
]
apart = abs(scores[0] - scores[1]).max() / abs(scores[0]).max()
print(f"two scores differ by at most {float(apart):.0e} of the largest")

# %%
theme = get_theme("light")
figure = new_figure(7, 3.2, theme)
ax = figure.subplots()
tidy(ax, theme)
many = np.geomspace(50, 10_000, 50)
ax.plot(many, 4 * many, color=theme.ink, label="traces of 4 chains")
looks = zip((len(wrong), 100, 1000), theme.chains, ("-", "--", "-."), strict=False)
for queries, color, style in looks:
    label = f"sums, {queries} queries"
    ax.axhline(32 * (queries + 2), color=color, linestyle=style, label=label)
ax.plot(draws, per_row, "o", color=theme.chains[0], label="this run")
ax.set(xscale="log", yscale="log", xlabel="draws of each chain", ylabel="values kept of a row")
figure.legend(loc="outside right upper", fontsize=8, frameon=False, labelcolor=theme.muted)
figure

# %% [markdown]
# Sums pay below the line of the traces. Of very many queries, traces are the smaller; `trace_dtype=
# "float16"` halves them. A streamed run keeps the traces of 2,048 rows beside its sums, to be diagnosed
# by, which on data as few as these are all of them.
#
# ## On many machines
#
# Chains are independent, and so are the rows to be scored. With a client of Dask, workers make the
# draws; nothing else changes, neither the call nor the draws. It is not run here:
#
# ```python
# from dask.distributed import Client
#
# if __name__ == "__main__":
#     client = Client("tcp://scheduler:8786")
#     run = bif.sample(kernel, **large, draws=1000, client=client)
# ```
#
# Clusters, and what happens when a worker dies: [Runs on many machines](../cluster.md).
#
# ## In short
#
# | too much | what helps |
# |---|---|
# | time for a draw | fewer rows to score; a cluster; `sites`, if steps are what it takes |
# | draws | `draws="auto"` with a target; a larger `localization`, which [asks another question](choosing_settings.md) |
# | memory for the chains | `chain_method="sequential"`, `rows_at_once`, `sites` |
# | memory for scores | `top` of the stored run |
# | disk | `stream=True` for few queries, `trace_dtype="float16"` for many |
# | patience | `ppl-bif follow`, `open_store`, and the same call again |
