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
# # Few draws, settled ranks
#
# Draws cost time, and scores from few draws are noisy. What does a run of 4 chains and 250 draws
# tell, how can one know, and when should one ask for more? Every number and picture below was made
# when this page was built.

# %%
import jax
import numpy as np
from scipy.stats import spearmanr

import ppl_bif as bif
from ppl_bif.numpyro import SGLD, localize
from ppl_bif.plots.style import get_theme, new_figure, tidy
from ppl_bif_models import digits, digits_jax

data = digits.load()
half = slice(None, None, 2)  # every other row, to be quick
data = data._replace(**{name: rows[half] for name, rows in data._asdict().items()})
network = digits_jax.mlp
params = digits_jax.train(network, digits_jax.init_mlp(jax.random.key(0)), *data.train)
rows = {
    "train": data.train,
    "query": data.query,
    "train_ids": data.train_ids,
    "query_ids": data.query_ids,
}

# %% [markdown]
# ## Nothing tuned
#
# A localized model is all that `sample` needs. Warm-up chooses the rest, and writes down each
# choice with its reason. All 180 test digits are explained at once. The weights of the draws are kept
# for [later](#gradients-at-the-draws).

# %%
model = localize(network, params, likelihood="categorical")
idata = bif.sample(model, **rows, chains=4, draws=250, seed=0, save_weights=True)
for line in [*idata.attrs["tuning"], *idata.attrs["notes"]]:
    print(line)

# %% [markdown]
# ## Is it to be believed?

# %%
check = bif.diagnose(idata)

# %% [markdown]
# One line foretells how well the ranks would agree with another such run. We can afford to make
# that run. For each query, the Spearman correlation of its 719 plain scores between two seeds
# says what really happens.


# %%
def plain(run):
    return bif.influence(run, shrink=None)


def agreement(a, b):
    """Spearman correlation of each query's scores."""
    pairs = zip(a["influence"].values, b["influence"].values, strict=True)
    return np.array([spearmanr(x, y).statistic for x, y in pairs])


again = bif.sample(model, **rows, chains=4, draws=250, seed=1)
measured = agreement(plain(idata), plain(again))
print(f"expected, from one run: {float(check['rank_reliability']):.2f}")
print(f"measured, from two:     {measured.mean():.2f}")

# %% [markdown]
# The forecast compares quarters and halves of the draws, and carries the growth of their agreement
# on to the whole. It is a guess from noisy scores. Take it as a guide, and a second seed as the
# answer.
#
# What is the default worth? Beside it, SGLD with minibatches draws as often from the same
# posterior. Its draws are cheaper: five gradients of 128 rows each, where the default takes a few
# of all rows. `sample` may find that its chains have not settled; then `influence` refuses to score
# them. To compare all the same, we take the refusal away. Do not do this at home.

# %%
kernel = SGLD(model.resolve(idata.attrs["localization"]), batch_size=128, steps_per_draw=5)
walks = [bif.sample(kernel, **rows, chains=4, draws=250, seed=seed) for seed in (0, 1)]
for seed, walk in enumerate(walks):
    verdict = bif.diagnose(walk, verbose=False).attrs["verdict"]
    print(f"SGLD, seed {seed}: verdict {verdict}, refused: {walk.attrs.pop('refused', 'no')}")
spread = {"default": measured, "SGLD": agreement(*map(plain, walks))}

# %%
theme = get_theme("light")
figure = new_figure(7, 3.2, theme)
ax = figure.subplots()
tidy(ax, theme)
bins = np.linspace(min(map(np.min, spread.values())), max(map(np.max, spread.values())), 40)
for (name, values), color in zip(spread.items(), theme.chains, strict=False):
    label = f"{name}: mean {values.mean():.2f}"
    ax.hist(values, bins, color=color, alpha=0.25)
    ax.hist(values, bins, color=color, histtype="step", linewidth=1.4, label=label)
ax.axvline(
    float(check["rank_reliability"]), color=theme.ink, ls=":", label="expected of the default"
)
ax.set(xlabel="rank correlation of a query's scores between two seeds", ylabel="queries")
ax.legend(fontsize=8, frameon=False, labelcolor=theme.muted)
figure

# %% [markdown]
# These are correlations over *all* training rows. Most rows have next to nothing to do with a given
# query: their scores are near 0, and their order is noise in any run. What one reads are the first
# few.
#
# ## Which ranks are settled
#
# `top` says two things of each rank. `resolved`: the row's score is not 0, at a false discovery
# rate of 5% over all rows. `settled`: the score also differs from those of its neighbours in the
# list by more than twice the error of the difference, so other draws would most likely put it at
# the same place. Here are the ten rows that most raise a test digit that the network misreads.

# %%
predicted = np.asarray(network(params, data.query_x)).argmax(axis=1)
misread = int(np.flatnonzero(predicted != data.query_y)[0])
query = data.query_ids[misread]
print(f"id {query}: is {data.query_y[misread]}, read as {predicted[misread]}")

scores = bif.influence(idata)
best = bif.top(scores, k=10)
one = best.sel(query=query, direction="raises")

figure = new_figure(7, 3.6, theme)
ax = figure.subplots()
tidy(ax, theme)
ax.axvline(0, color=theme.muted, linewidth=0.8)
for rank in range(10):
    row = one.isel(rank=rank)
    color = theme.raises if row["resolved"] else theme.muted
    fill = color if row["settled"] else theme.paper
    value, error = float(row["influence"]), 2 * float(row["mcse"])
    ax.errorbar(value, rank, xerr=error, fmt="o", color=color, markerfacecolor=fill, markersize=6)
for color, fill, text in (
    (theme.raises, theme.raises, "resolved and settled"),
    (theme.raises, theme.paper, "resolved: not 0, but its rank may change"),
    (theme.muted, theme.paper, "unresolved"),
):
    ax.plot([], [], "o", color=color, markerfacecolor=fill, label=text)
digit = dict(zip(data.train_ids.tolist(), data.train_y.tolist(), strict=True))
names = [f"{i} (a {digit[i]})" for i in one["train"].values.tolist()]
ax.set_yticks(range(10), names)
ax.invert_yaxis()
ax.set(xlabel="influence ± 2 errors (nats)", ylabel="training row")
ax.legend(fontsize=8, frameon=False, labelcolor=theme.muted, loc="lower right")
figure

# %% [markdown]
# And with fewer draws, would the same rows have stood out? `plot_convergence` estimates the scores of
# the query from the first 25 draws of each chain, the first 50, and so on. Errors shrink, and what has
# settled moves within them.

# %%
curves = bif.plot_convergence(idata.isel(query=[misread]), query)

# %% [markdown]
# How do the shares grow? A run of fewer draws is a cut of this one. Every third query is enough to
# see it.


# %%
def shares(run):
    best = bif.top(bif.influence(run.isel(query=slice(0, None, 3))), k=10)
    return float(best["resolved"].mean()), float(best["settled"].mean())


print("draws  resolved  settled   of the top 10, mean over queries and directions")
for draws in (31, 62, 125, 250):
    resolved, settled = shares(idata.isel(draw=slice(draws)))
    print(f"{draws:5}  {resolved:8.0%}  {settled:7.0%}")

# %% [markdown]
# To know that a score is not 0 takes far fewer draws than to know its place in the list. An error
# shrinks with the square root of the draws: to halve it takes four times as many. So read the top
# as a set of rows, not as a ranking, where few ranks are settled.
#
# ## Two estimates from the same draws
#
# With 200 training rows or more, `influence` shrinks its estimates (`shrink="eb"`); `shrink=None`
# gives the plain covariance of the draws. The draws are the same. Which estimate agrees better
# between the two seeds?

# %%
estimates = {"plain": None, "shrunk (default)": "eb"}
found = {
    name: [bif.influence(run.isel(query=slice(0, None, 3)), shrink=how) for run in (idata, again)]
    for name, how in estimates.items()
}
print("estimate          agreement of two seeds")
for name, pair in found.items():
    print(f"{name:16}  {agreement(*pair).mean():.2f}")

# %% [markdown]
# To agree with itself is not to be right: a biased estimate can be very stable. The plain
# covariance has no bias beyond that of the draws, and all their noise. Shrunk scores are too close
# to 0, by less than their noise, and the bias goes away with many draws.
# [Concepts](../concepts.md#estimators) has more. Below, a long run tells how close each comes.
#
# ## When to ask for more
#
# With `draws="auto"` a run goes on until it expects its ranks to agree with another run's as well
# as you ask, or until the time is up. The run above was far from 0.8. We give it 15 seconds. What
# does it reach?

# %%
long = bif.sample(
    model, **rows, chains=4, draws="auto", target={"rank_agreement": 0.8}, max_time=15, seed=2
)
print("\n".join(long.attrs["notes"]))

# %% [markdown]
# Was the forecast right? Two pieces of the long run that do not overlap are as good as two runs, as
# long as draws forget quickly. So for each number of draws there is a forecast, from one piece
# alone, and a measurement, from two.

# %%
total = long.attrs["draws"]
sizes = [n for n in (31, 62, 125, 250, 500, 1000) if 2 * n <= total]
foretold, seen = [], []
for n in sizes:
    first, second = (long.isel(draw=slice(start, start + n)) for start in (0, total - n))
    foretold.append(float(bif.diagnose(first, verbose=False)["rank_reliability"]))
    seen.append(agreement(plain(first), plain(second)).mean())

figure = new_figure(7, 3, theme)
ax = figure.subplots()
tidy(ax, theme)
ax.plot(sizes, foretold, "o:", color=theme.ink, label="expected, from one piece")
ax.plot(sizes, seen, "o-", color=theme.raises, label="measured, between two pieces")
ax.set_xscale("log")
ax.set_xticks(sizes, [str(n) for n in sizes])
ax.minorticks_off()
ax.set_ylim(0, 1)
ax.set(xlabel="draws per chain", ylabel="rank agreement")
ax.legend(fontsize=8, frameon=False, labelcolor=theme.muted, loc="upper left")
figure

# %% [markdown]
# The long run also judges the estimates of 250 draws. It has another seed, and its plain scores are
# the nearest thing to a truth on this page. They are noisy too, so no column reaches 1.

# %%
truth = plain(long)
resolved, settled = shares(long)
print(f"{total} draws: {resolved:.0%} of the top 10 resolved, {settled:.0%} settled\n")
print("250 draws         agreement with the long run   top 10 in common")


def common(a, b):
    """Share of the ten largest scores of each query that two tables have in common."""
    tops = [bif.top(s, k=10)["train"].sel(direction="raises").values for s in (a, b)]
    return np.mean([len(set(x) & set(y)) / 10 for x, y in zip(*tops, strict=True)])


for name, (first, _) in found.items():
    same = truth.sel(query=first["query"])
    close = agreement(first, same).mean()
    print(f"{name:16}  {close:27.2f}  {common(first, same):17.0%}")

# %% [markdown]
# ## Gradients at the draws
#
# A draw says what every loss is there. It can also be asked how every loss slopes there, and slopes
# tell most of a covariance with far less noise. `refine` takes the weights of a run, the model and the
# rows, and splits each covariance in two: what the mean gradients of query and row explain, and what
# is left of it ([Theory](../theory.md#gradients-at-the-draws)). The sum estimates the same influence,
# with errors of its own. We give it a quarter of the draws.

# %%
every = slice(0, None, 3)
few = idata.isel(draw=slice(62), query=every)
asked = {"train": data.train, "query": tuple(part[every] for part in data.query)}
by_losses, by_slopes = bif.influence(few), bif.refine(few, model, **asked)
same = truth.isel(query=every)
print("4 x 62 draws  agreement with the long run   top 10 in common   scores resolved")
for name, table in {"shrunk": by_losses, "refined": by_slopes}.items():
    close, share = agreement(table, same).mean(), float(table["resolved"].mean())
    print(f"{name:12}  {close:27.2f}  {common(table, same):17.0%}  {share:16.0%}")

# %%
figure = new_figure(7, 3.4, theme)
panels = figure.subplots(1, 2, sharex=True, sharey=True)
far = float(np.abs(same["influence"]).max())
for ax, (name, table) in zip(
    panels, {"shrunk": by_losses, "refined": by_slopes}.items(), strict=True
):
    tidy(ax, theme)
    ax.plot([-far, far], [-far, far], color=theme.muted, linewidth=0.8)
    x, y = (found["influence"].values.ravel() for found in (same, table))
    ax.plot(x, y, ".", color=theme.raises, markersize=2, alpha=0.3)
    ax.set(title=f"{name}, 4 x 62 draws", xlabel=f"plain score of {total} draws a chain (nats)")
panels[0].set_ylabel("score (nats)")
figure

# %% [markdown]
# It costs a gradient of all rows at every draw, those of single rows at 256 draws, and some products
# with the Hessian: about as much as so few draws themselves. It holds vectors as long as the weights
# for each query, so it is for networks of millions of weights, not of billions.
#
# Noise no longer asks for a strong prior then: `localize(..., localization="weak")` lets more directions move, which have
# more to tell. And where only *retraining* is to be foretold, `refine(..., first_order=True)` leaves out what mean
# gradients do not explain: it is cheaper, has less noise, and [foretells best](../quality.md#where-only-retraining-is-to-be-foretold).
#
# ## What if the row were removed?
#
# That can be checked in seconds. Removing row *i* divides the posterior by its likelihood, so draws
# that are weighted by $1 / p_i$ are draws without it: we do this with the draws of another seed. The
# second check needs no draws. It takes the *mode* of the localized posterior, fine-tuned from the
# trained weights by full-batch gradient descent with momentum, with the row and without it. The columns need not be equal: a score is a slope, and a removal is a
# whole step along a curve; a mode is one point, and a score speaks of a mean over draws. Neither
# check is a retraining from scratch, which [Cost against quality](../quality.md) foretells.

# %%
gamma = idata.attrs["localization"]
checked = best.sel(query=query).isel(rank=slice(4)).stack(row=("direction", "rank"))
names = checked["train"].values
curvature = 70 * gamma  # no less than the top one at w*, as the default localization is chosen
x, y = (jax.numpy.asarray(a) for a in data.train)
start, unravel = jax.flatten_util.ravel_pytree(params)


def log_p(w, x, y):
    return jax.nn.log_softmax(network(unravel(w), x))[jax.numpy.arange(len(y)), y]


def energy(w, weight):
    return -(weight * log_p(w, x, y)).sum() + gamma / 2 * ((w - start) ** 2).sum()


def mode(weight):
    def step(at, _):
        w, speed = at
        speed = 0.8 * speed - 0.5 / curvature * jax.grad(energy)(w, weight)
        return (w + speed, speed), None

    (w, _), _ = jax.lax.scan(step, (start, 0 * start), length=200)
    return log_p(w, data.query_x[[misread]], data.query_y[[misread]])[0]


position = np.searchsorted(data.train_ids, names)
weights = np.ones((1 + len(names), len(data.train_y)), np.float32)
weights[1 + np.arange(len(names)), position] = 0
modes = np.asarray(jax.jit(lambda w: jax.lax.map(mode, w))(weights))

likelihood = again["log_likelihood"]
phi = likelihood["query_obs"].sel(query=query).values
print("change of the query's log-likelihood, in nats")
print("row       minus the score    removed, by weights    removed, at the mode")
for at, name in enumerate(names):
    cell = checked.isel(row=at)
    without = np.exp(-likelihood["train_obs"].sel(train=name).values)
    change = (without * phi).sum() / without.sum() - phi.mean()
    score, error = -float(cell["influence"]), float(cell["mcse"])
    moved = modes[1 + at] - modes[0]
    print(f"{name:4}  {score:+10.3f} ± {error:.3f}  {change:+21.3f}  {moved:+22.3f}")
