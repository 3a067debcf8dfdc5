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
# # A network beside NUTS
#
# The posterior around a network's weights is an ordinary model, so the PPL's own sampler runs on it.
# For a small network NUTS is affordable, and it has no step that biases it. Do the kernels that are
# made for large networks give the same scores?

# %%
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro.infer import MCMC, NUTS
from numpyro.optim import Adam
from sklearn.datasets import load_diabetes

import ppl_bif as bif
from ppl_bif.numpyro import SGLD, UnderdampedLangevin, localize
from ppl_bif.plots.style import get_theme, new_figure, tidy

# %% [markdown]
# ## A small network on real data
#
# How far a diabetes went within a year, from ten measurements, of 442 patients (Efron et al. 2004):
# 150 to learn from, 20 to explain. The network has 4 hidden units and 49 weights. The likelihood
# `"normal"` has a variance of 1, so targets are in units of the residuals.

# %%
x, y = load_diabetes(return_X_y=True)
x, y = np.float32(x / x.std(axis=0)), np.float32((y - y.mean()) / 55)
rows = np.random.default_rng(0).permutation(len(y))
train, query = ((x[part], y[part]) for part in (rows[:150], rows[150:170]))


def network(params, x):
    return jnp.tanh(x @ params["in"] + params["bias"]) @ params["out"] + params["mean"]


def loss(params):
    squares = sum(jnp.sum(w**2) for w in jax.tree.leaves(params))
    return jnp.sum((network(params, train[0]) - train[1]) ** 2) / 2 + squares / 2


shapes = {"in": (10, 4), "bias": (4,), "out": (4,), "mean": ()}
keys = jax.random.split(jax.random.key(0), 4)
start = {n: jax.random.normal(k, s) / 3 for k, (n, s) in zip(keys, shapes.items(), strict=True)}
adam = Adam(0.01)


def step(state, _):
    return adam.update(jax.grad(loss)(adam.get_params(state)), state), None


params = adam.get_params(jax.lax.scan(step, adam.init(start), length=2000)[0])
model = localize(network, params, likelihood="normal", localization=5.0)
print(f"{model.num_weights} weights, training loss {float(loss(params)) / 150:.2f} a patient")

# %% [markdown]
# ## Three samplers of one model
#
# NUTS takes the model as it takes any other. It keeps weights, and the log-likelihoods are worked
# out from them. The two kernels go through `sample`. SGLD gets a small step, as minibatches and a
# large step both widen its draws; the other has all settings from warm-up.

# %%
mcmc = MCMC(
    NUTS(model),
    num_warmup=300,
    num_samples=500,
    num_chains=4,
    chain_method="vectorized",
    progress_bar=False,
)
mcmc.run(jax.random.key(1), *train)
weights = mcmc.get_samples(group_by_chain=True)
log_p = jax.jit(jax.vmap(jax.vmap(model.log_likelihood, (0, None)), (0, None)))
nuts = xr.Dataset(
    {
        f"{side}_obs": (("chain", "draw", side), np.asarray(log_p(weights, data)))
        for side, data in {"train": train, "query": query}.items()
    }
)
runs = {"NUTS": xr.DataTree.from_dict({"log_likelihood": nuts})}
kernels = {
    "UnderdampedLangevin": UnderdampedLangevin(model),
    "SGLD": SGLD(model, step_size=1e-3, batch_size=50, steps_per_draw=10),
}
for name, kernel in kernels.items():
    runs[name] = bif.sample(kernel, train=train, query=query, chains=4, draws=1000, seed=2)
scores = {name: bif.influence(run, shrink=None) for name, run in runs.items()}

# %% [markdown]
# ## The same scores?
#
# Of the 3,000 pairs of a query and a training row, every eighth by size. Bars are one Monte Carlo
# error of each score.

# %%
theme = get_theme("light")
figure = new_figure(8, 4, theme)
truth = scores["NUTS"]
value, error = (truth[name].values.ravel() for name in ("influence", "mcse"))
some = np.argsort(-np.abs(value))[::8]
ends = np.array([value.min(), value.max()]) * 1.1
for axes, name in zip(figure.subplots(1, 2, sharey=True), kernels, strict=True):
    found, spread = (scores[name][v].values.ravel() for v in ("influence", "mcse"))
    axes.plot(ends, ends, color=theme.muted, lw=1)
    axes.errorbar(
        value[some], found[some], spread[some], error[some],
        fmt="o", ms=2.5, lw=0.6, color=theme.raises, alpha=0.6,
    )  # fmt: skip
    axes.set(xlabel="score by NUTS (nats)", ylabel="score by the kernel (nats)")
    axes.set_title(name)
    tidy(axes, theme)
    axes.title.set(size=9, color=theme.ink)
figure

# %%
print("                       slope  correlation  off by more than two errors")
for name in kernels:
    found, spread = (scores[name][v].values.ravel() for v in ("influence", "mcse"))
    # The noise of NUTS would make a slope too flat: its squared errors are taken off.
    slope = (found @ value) / (value @ value - error @ error)
    off = np.abs(found - value) > 2 * np.hypot(spread, error)
    print(f"{name:20}  {slope:6.2f}  {np.corrcoef(found, value)[0, 1]:11.3f}  {off.mean():27.1%}")

# %% [markdown]
# The slope is 1, and about as many pairs differ by two errors as errors promise, 5%: the kernels
# sample what NUTS samples, and the errors are honest. The scatter that is left is noise of all
# three, and falls with the root of the draws.
#
# The tests hold every kernel against NUTS in this way, and against posteriors known in closed form.
# Beyond some hundreds of weights NUTS is no longer affordable;
# [Few draws, settled ranks](few_draws.md) and [Cost against quality](../quality.md) go on from
# there.
