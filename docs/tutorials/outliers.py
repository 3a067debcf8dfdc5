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
# # Which star bends the line?
#
# In the star cluster CYG OB1 hotter stars shine brighter, and yet the regression line of light on
# temperature falls. A few rows do that. Two tools look at the rows of a posterior: leave-one-out
# cross-validation by Pareto-smoothed importance sampling (PSIS-LOO), which ArviZ has, and
# influence. They work from the same draws. What does each of them see?

# %%
import warnings

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist
from numpyro.infer import MCMC, NUTS

import ppl_bif as bif
from ppl_bif.plots.style import get_theme, new_figure, tidy

# Humphreys (1978), as in Rousseeuw & Leroy, Robust Regression and Outlier Detection (1987).
star, temperature, light = np.loadtxt("data/stars/cygnus.csv", delimiter=",", skiprows=1).T
x = temperature - temperature.mean()


def model(weight):
    intercept = numpyro.sample("intercept", dist.Normal(5, 5))
    slope = numpyro.sample("slope", dist.Normal(0, 5))
    noise = numpyro.sample("noise", dist.HalfNormal(2))
    with numpyro.plate("star", len(x)), numpyro.handlers.scale(scale=jnp.maximum(weight, 1e-9)):
        numpyro.sample("light", dist.Normal(intercept + slope * x, noise), obs=light)


mcmc = MCMC(
    NUTS(model),
    num_warmup=300,
    num_samples=1000,
    num_chains=4,
    chain_method="vectorized",
    progress_bar=False,
    jit_model_args=True,
)


def fit(weight, seed=0):
    """Sample with a weight on the log-likelihood of each star; 0 leaves it out."""
    mcmc.run(jax.random.key(seed), jnp.asarray(weight, float))
    return mcmc.get_samples(group_by_chain=True)


fit(np.ones(len(x)))
run = az.from_numpyro(mcmc, log_likelihood=True, dims={})
slope = float(run["posterior"]["slope"].mean())
print(f"{len(x)} stars, slope {slope:+.2f} ± {float(run['posterior']['slope'].std()):.2f}")

# %% [markdown]
# ## Influence on the slope
#
# `observable="slope"` asks how much more weight on a star would move the posterior mean of the
# slope. Positive raises it. The other score is of the star on its own log-likelihood: how much it
# moves its own prediction. Beside them, what PSIS-LOO says of leaving the star out.

# %%
on_slope = bif.influence(run, observable="slope", shrink=None).isel(query=0)
own = bif.influence(run, shrink=None)
on_itself = np.diagonal(own["influence"])
found = az.loo(run, pointwise=True)
k_hat = np.asarray(found.pareto_k)

order = np.argsort(-np.abs(on_slope["influence"].values))[:7]
print("star  influence on the slope  influence on itself   k-hat")
for i in order:
    score, error = float(on_slope["influence"][i]), float(on_slope["mcse"][i])
    print(f"{star[i]:4.0f}  {score:+15.3f} ± {error:.3f}  {on_itself[i]:19.3f}  {k_hat[i]:6.2f}")

# %%
named = on_slope.assign_coords(train=[f"star {one:.0f}" for one in star])
forest = bif.plot_forest(named.expand_dims("query"), k=7)

# %% [markdown]
# By its k-hat no star is suspicious: all are far below 0.7, beyond which leaving one out would
# change the posterior too much for its draws to tell. Influence names four that all pull the slope
# down, 34, 30, 20 and 11. They are giants, another kind of star: cool and bright.

# %%
theme = get_theme("light")
giants = temperature < 3.6
figure = new_figure(8, 3.8, theme)
left, right = figure.subplots(1, 2)

size = np.abs(on_slope["influence"].values)
hues = [theme.raises if v > 0 else theme.lowers for v in on_slope["influence"].values]
ends = np.array([temperature.min() - 0.05, temperature.max() + 0.05])
left.plot(ends, light.mean() + slope * (ends - temperature.mean()), color=theme.ink, lw=1)
left.scatter(temperature, light, s=8 + 400 * size / size.max(), c=hues, alpha=0.6, linewidths=0)
left.set(xlabel="log temperature", ylabel="log light")
left.set_title("area: influence on the slope\nblue raises it, orange lowers it")

right.scatter(k_hat, on_itself, s=24, color=theme.muted)
right.axvline(0.7, color=theme.muted, ls=":", lw=1)
right.set(xlabel="k-hat of leaving the star out", ylabel="influence on itself (nats)")
right.set_title("no star is beyond 0.7, where\nleaving one out is called hard")
for axes, across, up in ((left, temperature, light), (right, k_hat, on_itself)):
    tidy(axes, theme)
    axes.margins(0.1)
    axes.title.set(size=9, color=theme.ink)
    for i in order[:5]:
        at = (across[i], up[i])
        axes.annotate(
            f"{star[i]:.0f}", at, xytext=(7, 4), textcoords="offset points", size=8, color=theme.ink
        )
figure

# %% [markdown]
# Influence on itself is the first term of what the star adds to the effective number of parameters
# in LOO and WAIC ([Relations](../relations.md#importance-sampling-and-psis-loo)). So the sums are
# close:

# %%
print(f"influence on itself, all stars: {on_itself.sum():.2f}")
p_loo = getattr(found, "p_loo", None) or found.p  # as ArviZ 0.x and 1.x call it
print(f"p_loo:                          {float(p_loo):.2f}")

# %% [markdown]
# ## Leave them out
#
# What would the slope be without each of them, and without all four? `reweight` foretells it from
# the same draws, to first order (minus the influence), to second order, and by importance sampling
# with its own k-hat. NUTS samples each posterior anew to check.

# %%
scenarios = {"without 34": star != 34, "without 14": star != 14}
scenarios["without all giants"] = ~giants
weights = np.array(list(scenarios.values()), float)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # it warns of what the table shows
    foretold = bif.reweight(run, weights, observable="slope").isel(query=0)

now = float(az.mcse(run["posterior"]["slope"].values))
print("shift of the slope  first order      second       importance  k-hat      fitted anew")
for at, (name, weight) in enumerate(scenarios.items()):
    refit = np.asarray(fit(weight, seed=1 + at)["slope"])
    shift, error = refit.mean() - slope, np.hypot(now, float(az.mcse(refit)))
    one = {name: float(value) for name, value in foretold.isel(scenario=at).data_vars.items()}
    print(
        f"{name:18}  {one['shift']:+.3f} ± {one['mcse']:.3f}  {one['second_order']:+6.3f}"
        f"  {one['importance']:+.3f} ± {one['importance_mcse']:.3f}  {one['pareto_k']:5.2f}"
        f"  {shift:+.3f} ± {error:.3f}"
    )

# %% [markdown]
# Of one star, importance sampling is right within its error, and first order falls short by up to
# a fifth. The slope hardly moves, because the other giants hold the line where it is: that is called
# *masking*, and it is why no k-hat rose. Together the four turn the line around, which is so far
# from the posterior sampled that these draws cannot say it. First order has the sign, k-hat says
# not to trust the size, and only the new fit has it.
#
# | | sees | does not see |
# |---|---|---|
# | k-hat | whether leaving out one row asks too much of the draws | what changes, which way; rows that mask each other |
# | influence on itself | how much a row moves its own prediction | the same |
# | influence on the slope | which rows pull on it, which way, and that four pull together | how far it goes without all four |
# | `reweight` | other weights of many rows at once, and when not to trust it | posteriors that the draws do not reach |
#
# So look at the rows that pull together on what you care about, and fit anew without them. For
# groups that are known beforehand there is `groups=`: see
# [Which county drives the slope?](which_county.md).
