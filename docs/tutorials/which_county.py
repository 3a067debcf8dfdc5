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
# # Which county drives the slope?
#
# No network here, and no SGLD: any posterior with pointwise log-likelihoods will do. Radon was
# measured in 919 homes of Minnesota, in the basement or on the first floor. A hierarchical
# regression says how much less there is upstairs, each of 85 counties with its own intercept and
# slope. NUTS samples it once. Which counties is the common slope owed to, what would it be without
# them, and how far would it move with other homes?

# %%
import warnings
from functools import partial

import arviz as az
import jax
import numpy as np
from numpyro.infer import MCMC, NUTS

import ppl_bif as bif
from ppl_bif.plots.style import get_theme, new_figure, tidy
from ppl_bif_models import radon

homes = radon.load()
county = homes.names[homes.county]


mcmc = MCMC(
    NUTS(partial(radon.model, homes), target_accept_prob=0.9),
    num_warmup=500,
    num_samples=1000,
    num_chains=4,
    chain_method="vectorized",
    progress_bar=False,
    jit_model_args=True,
)


def fit(weight, seed=0):
    mcmc.run(jax.random.key(seed), weight)
    return az.from_numpyro(mcmc, log_likelihood=seed == 0, dims={})


run = fit(np.ones(len(county)))
az.summary(run, var_names=["intercept", "slope", "spread", "noise"])

# %% [markdown]
# ## The influence of a county
#
# `groups=` sums the log-likelihoods of the homes of a county; `observable=` is what is explained. A
# **positive** score: more weight on the county raises the slope (it is below 0, so towards no
# difference between floors). Each has its Monte Carlo error.

# %%
scores = bif.influence(run, observable="slope", groups=county, shrink=None).isel(query=0)
order = np.argsort(-np.abs(scores["influence"].values))[:10]
scores.isel(train=order)[["influence", "mcse", "resolved"]].to_dataframe().drop(columns="query")

# %% [markdown]
# ## What if it were not there?
#
# The first-order shift of the slope when a county is dropped is its influence with the other sign.
# `reweight` gives it, beside two that see further: second order, and Pareto-smoothed importance
# sampling with its k. Here the four counties with the largest influence, each dropped in turn.

# %%
counties = scores["train"].values
largest = counties[order[:4]]
weights = 1 - (counties[None] == largest[:, None]).astype(float)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    shifts = bif.reweight(run, weights, observable="slope", groups=county).isel(query=0)
shifts = shifts.assign_coords(scenario=largest)
columns = ["shift", "mcse", "second_order", "importance", "importance_mcse", "curved", "pareto_k"]
shifts[columns].to_dataframe().drop(columns="query").round(4)

# %% [markdown]
# `curved` says where second order adds a quarter or more: first order alone is then not enough, and
# `reweight` warns of it (the warning is silenced here). Are they right? NUTS again, without each:

# %%
now = float(run["posterior"]["slope"].mean())
refits = [fit((county != name).astype(float), seed=1 + i) for i, name in enumerate(largest)]
refitted = np.array([float(one["posterior"]["slope"].mean()) for one in refits]) - now
errors = np.array([float(az.mcse(one["posterior"]["slope"].values)) for one in refits])

theme = get_theme("light")
figure = new_figure(6, 5, theme)
axes = figure.subplots()
for name, error, colour in (
    ("shift", "mcse", theme.raises),
    ("importance", "importance_mcse", theme.lowers),
):
    said = {"shift": "first order", "importance": "importance sampling"}[name]
    axes.errorbar(
        shifts[name],
        refitted,
        xerr=2 * shifts[error],
        yerr=2 * errors,
        fmt="o",
        color=colour,
        label=said,
    )
span = 1.15 * np.abs(refitted).max()
axes.plot([-span, span], [-span, span], color=theme.muted, linewidth=1)
axes.set_xlabel("shift of the slope, foretold")
axes.set_ylabel("shift of the slope, fitted anew")
axes.legend(frameon=False)
tidy(axes, theme)
figure

# %% [markdown]
# Bars are two Monte Carlo errors, and the line is where both agree. First order has the signs and
# most of the size; a county that is dropped whole moves the slope more than its first homes would.
#
# ## With other counties
#
# The posterior's standard deviation takes the model at its word. What the slope would do had other
# counties been measured is another question, and the infinitesimal jackknife answers it from the
# same draws: the spread of the influences. Counties are resampled whole; homes, if each is its own
# group.

# %%
names = ["intercept", "slope", "noise"]
by_home = bif.jackknife(run, observable=names)
by_county = bif.jackknife(run, observable=names, groups=county)
table = by_county[["mean", "posterior_sd", "sd", "sd_mcse"]].rename(
    sd="sd_counties", sd_mcse="sd_counties_mcse"
)
table["sd_homes"] = by_home["sd"]
table[["mean", "posterior_sd", "sd_homes", "sd_counties", "sd_counties_mcse"]].to_dataframe().round(
    3
)

# %% [markdown]
# Where these exceed `posterior_sd`, the data vary more than the model says.
#
# [`reweight`](../reference/reweight.md) · [`jackknife`](../reference/jackknife.md) ·
# [`influence`](../reference/influence.md). How foretold shifts compare with refits on the eight
# schools and on radon, and where they break:
# [Cost against quality](../quality.md#foretold-and-fitted-anew).
