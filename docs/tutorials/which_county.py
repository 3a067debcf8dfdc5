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
# slope. NUTS samples it once. Which counties is the common slope owed to, and what would it be
# without them?

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
    num_warmup=400,
    num_samples=400,
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
# sampling with its k. Here the two counties with the
# largest influence of each sign, each dropped in turn.

# %%
counties = scores["train"].values
by_influence = counties[np.argsort(scores["influence"].values)]
largest = np.r_[by_influence[-2:][::-1], by_influence[:2]]
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
figure = new_figure(7, 4, theme)
axes = figure.subplots()
at = np.arange(len(largest))
for offset, label, value, error, colour in (
    (-0.2, "first order", shifts["shift"], shifts["mcse"], theme.raises),
    (0.0, "importance sampling", shifts["importance"], shifts["importance_mcse"], theme.muted),
    (0.2, "fitted anew", refitted, errors, theme.lowers),
):
    axes.errorbar(value, at + offset, xerr=2 * error, fmt="o", color=colour, label=label)
axes.axvline(0, color=theme.line)
axes.set_yticks(at, largest)
axes.invert_yaxis()
axes.set_xlabel("shift of the slope when the county is dropped (bars: two Monte Carlo errors)")
axes.legend(frameon=False)
tidy(axes, theme)
figure

# %% [markdown]
# First order costs nothing beyond the run, and its errors are the smallest. Where it falls short of
# the refit, at Marshall and Winona, `curved` said so before. Where `pareto_k` is
# above 0.7 importance sampling has too few draws in the right place, and its bars show it.
#
# [`reweight`](../reference/reweight.md) · [`influence`](../reference/influence.md). How foretold
# shifts compare with refits on the eight schools and on radon, and where they break:
# [Cost against quality](../quality.md#foretold-and-fitted-anew).
