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
# # Choosing step size and localization
#
# `sample` chooses its settings by itself. What does it choose, what would other choices do, and how
# does one notice a bad one? Here the network is so small that the classical influence function can
# be computed exactly, so that each choice can be held against it. Every number below was made when
# this page was built.

# %%
import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn
from torch.func import functional_call, grad, hessian, vmap

import ppl_bif as bif
from ppl_bif.plots.style import get_theme, new_figure, tidy
from ppl_bif.pyro import SGLD, UnderdampedLangevin, localize
from ppl_bif_models import digits

torch.set_num_threads(1)
data = digits.load()


def smaller(images):
    """The 8 by 8 pixels as 4 by 4."""
    return torch.as_tensor(images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16))


x, y = smaller(data.train_x[:400]), torch.as_tensor(data.train_y[:400])
xq, yq = smaller(data.query_x[:40]), torch.as_tensor(data.query_y[:40])
rows = {"train": (x, y), "query": (xq, yq)}

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, 10))
optimizer = torch.optim.LBFGS(
    net.parameters(), max_iter=250, tolerance_change=1e-12, line_search_fn="strong_wolfe"
)


def objective():
    optimizer.zero_grad()
    decay = sum((w**2).sum() for w in net.parameters()) * 5e-5
    value = nn.functional.cross_entropy(net(x), y) + decay
    value.backward()
    return value


optimizer.step(objective)
with torch.no_grad():
    print(f"mean training loss {nn.functional.cross_entropy(net(x), y):.3f}")
    print(f"{int((net(xq).argmax(1) != yq).sum())} of {len(yq)} queries are read wrongly")

# %% [markdown]
# ## What is chosen, and why
#
# A model alone is enough. Each choice is kept with its reason.

# %%
CHAINS, DRAWS = 4, 150
default = bif.sample(
    localize(net, likelihood="categorical"), **rows, chains=CHAINS, draws=DRAWS, seed=0
)
for line in default.attrs["tuning"]:
    print(line)

# %% [markdown]
# - **Localization** $\gamma$ is the precision of the prior around the trained weights $w^*$. It is a
#   part of the question: another $\gamma$ has another answer, as another damping of an influence
#   function has. The default is a rule of thumb: one seventieth of the top curvature of the loss,
#   or more where draws of that prior would raise the loss by over a nat.
# - **Step size, steps per draw and warm-up** are parts of the solution. They should not change the
#   answer, only its cost, and they are measured in warm-up.
#
# ## A sweep of the localization
#
# What do we hold each run against? Where the posterior is narrow, the score of a row is the classical
# influence with damping $\gamma$: $\beta\, \nabla\phi^\top (\beta H + \gamma I)^{-1} \nabla \log p_i$
# ([Theory](../theory.md)). Of so few weights the Hessian $H$ of the summed loss is no trouble.

# %%
names, parameters = zip(*net.named_parameters(), strict=True)
at_mode = torch.cat([w.detach().reshape(-1) for w in parameters])


def log_p(flat, image, label):
    parts = flat.split([w.numel() for w in parameters])
    weights = {n: p.view(w.shape) for n, p, w in zip(names, parts, parameters, strict=True)}
    return -nn.functional.cross_entropy(functional_call(net, weights, (image[None],)), label[None])


def summed_loss(flat):
    return -vmap(log_p, (None, 0, 0))(flat, x, y).sum()


H = hessian(summed_loss)(at_mode).double().numpy()
of_rows = vmap(grad(log_p), (None, 0, 0))
g_train, g_query = (of_rows(at_mode, *pair).double().numpy() for pair in ((x, y), (xq, yq)))


def damped(gamma, beta=1.0):
    """The damped influence function, (query, train)."""
    precision = beta * H + gamma * np.eye(len(H))
    return beta * g_query @ np.linalg.solve(precision, g_train.T)


products = g_query @ g_train.T
print(f"{len(H)} weights, curvature of the loss up to {np.linalg.eigvalsh(H)[-1]:.0f}")

# %% [markdown]
# Runs at a tenth of the default, and at 10 and 100 times it. Of each we ask:
#
# - **rise**: how much higher the mean training loss is at the draws than at $w^*$.
# - **directions**: twice the rise, times $\beta$ and the rows: about how many directions of the weights
#   the data hold, the effective dimension. It is twice `bif.learning_coefficient`. In a Gaussian
#   posterior around a minimum it is $\mathrm{tr}[\beta H (\beta H + \gamma I)^{-1}]$, which is the
#   column **by the Hessian**.
# - **halves**: how well the scores of two chains agree with those of the other two, as a Spearman
#   correlation, the mean over queries. This is the noise.
# - **damped**: how well the scores of all chains agree with the damped influence. Noise alone keeps
#   them apart: **at most** says how far it would let scores come that have the same limit.
# - **products**: how well they agree with plain products of gradients, which need no draws at all.


# %%
def agreement(a, b):
    """Spearman correlation of the scores of each query, the mean over queries."""
    a, b = (rankdata(s, axis=1) - (s.shape[1] + 1) / 2 for s in (a, b))
    return float(np.mean((a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))))


def plain(run, chains=slice(None)):
    return bif.influence(run.isel(chain=chains), shrink=None)["influence"].values


def judged(run):
    gamma, beta = (run.attrs[name] for name in ("localization", "inverse_temperature"))
    scores, halves = plain(run), agreement(plain(run, slice(0, 2)), plain(run, slice(2, 4)))
    directions = 2 * float(bif.learning_coefficient(run)["learning_coefficient"])
    return {
        "gamma": gamma,
        "rise": directions / (2 * beta * len(y)),
        "directions": directions,
        "by Hessian": np.trace(np.linalg.solve(beta * H + gamma * np.eye(len(H)), beta * H)),
        "halves": halves,
        "at most": np.sqrt(max(0, 2 * halves / (1 + halves))),
        "damped": agreement(scores, damped(gamma, beta)),
        "products": agreement(scores, products),
    }


def asked(gamma, beta=1.0):
    model = localize(net, likelihood="categorical", localization=gamma, inverse_temperature=beta)
    return bif.sample(model, **rows, chains=CHAINS, draws=DRAWS, seed=0)


gamma = default.attrs["localization"]
sweep = {
    "a tenth": judged(asked(gamma / 10)),
    "default": judged(default),
    "10 times": judged(asked(10 * gamma)),
    "100 times": judged(asked(100 * gamma)),
}


def show(found):
    print("             gamma    rise  directions  by the   halves  damped  at    products")
    print("                    (nats)              Hessian                  most")
    for name, f in found.items():
        print(
            f"{name:9}  {f['gamma']:7.4g}  {f['rise']:+.3f}  {f['directions']:10.0f}"
            f"  {f['by Hessian']:7.0f}  {f['halves']:7.2f}  {f['damped']:6.2f}  {f['at most']:.2f}"
            f"  {f['products']:8.2f}"
        )


show(sweep)

# %%
theme = get_theme("light")
figure = new_figure(9, 3.4, theme)
left, right = figure.subplots(1, 2)
at = [f["gamma"] for f in sweep.values()]
lines = (
    (left, "directions", "twice the rise × rows", theme.raises, "o-"),
    (left, "by Hessian", "by the Hessian at w*", theme.ink, "s:"),
    (right, "at most", "most that noise allows", theme.muted, "--"),
    (right, "damped", "with the damped influence", theme.raises, "o-"),
    (right, "products", "with products of gradients", theme.lowers, "s-."),
    (right, "halves", "between halves of the chains", theme.ink, "^:"),
)
for ax, what, label, color, style in lines:
    ax.plot(at, [f[what] for f in sweep.values()], style, color=color, label=label, markersize=5)
for ax, label in ((left, "directions that move with the data"), (right, "rank agreement")):
    tidy(ax, theme)
    ax.axvline(gamma, color=theme.line, zorder=0)
    ax.set(xscale="log", xlabel="localization γ (the line: the default)", ylabel=label)
    ax.legend(fontsize=8, frameon=False, labelcolor=theme.muted)
right.set_ylim(0, 1.02)
figure

# %% [markdown]
# Read it from right to left:
#
# - **Strong localization** keeps all but the stiffest directions still. Halves of the chains agree
#   after few draws, because few directions make little noise. But the ranking becomes that of
#   products of gradients, which could be had without a draw: how rows share the directions of the
#   network is left out.
# - **Weak localization** lets more directions move. Each adds noise, so the scores need more draws.
#   And the draws go farther, to where the loss is no longer its own quadratic: the scores part from
#   the damped influence by more than the noise explains. That is a bias if the damped influence is
#   what you want. Otherwise it is another question, about a wider neighbourhood.
# - The rise of the loss counts the directions as the Hessian does, where the draws stay near. Of a
#   large network there is no Hessian to look at, but there is always the rise, which `diagnose` shows.
#   A rise *below* zero says that $w^*$ is no minimum: train further, or raise the localization.
#
# To choose: begin with the default. If too little is resolved and more draws are too dear, raise
# $\gamma$. If the rise is large, or `diagnose` says that the draws explain other networks, raise it
# too. If the ranking is that of products of gradients, lower it. Then leave it, and report it.
#
# ## What the inverse temperature does
#
# The ratio $\gamma / \beta$ is the damping: it says *which* directions count. The size of both says
# *how far* the draws go in them. So we hold the ratio, and take both ten times as large.

# %%
temperature = {
    "default": sweep["default"],
    "colder": judged(asked(10 * gamma, 10.0)),
}
show(temperature)

# %% [markdown]
# Both have the same damped influence, and move in about as many directions. The colder posterior goes a
# shorter way: the rise is smaller, and the scores come closer to the damped influence. A hotter one
# would tell more of where the loss is not quadratic. To ask about a small change of the data, raise
# both. $\beta = 1$ is the posterior of Bayes' rule, and the place to begin.
#
# ## The step size
#
# The step is no part of the question. A smaller one only takes longer, a larger one may not be
# stable. The default is 1.2 over the root of the top curvature that warm-up met; this kernel is
# unstable from 2 on. We take half of what was chosen, twice as much and eight times as much, at the
# same steps per draw. A step that you set yourself is taken as it is, unless chains diverge: then it
# is halved, once.

# %%
step, steps = (default.attrs[name] for name in ("step_size", "steps_per_draw"))
model = localize(net, likelihood="categorical", localization=gamma)


def told(run):
    """Energy, effective draws, noise, and what was said."""
    check = bif.diagnose(run, verbose=False)
    halves = agreement(plain(run, slice(0, 2)), plain(run, slice(2, 4)))
    print(
        f"energy over d/2 {float(check['energy_ratio']):.2f}, ESS of losses"
        f" {float(check['ess_low']):.0f}, agreement of halves {halves:.2f}"
    )
    for line in [*run.attrs["tuning"], *run.attrs["notes"]]:
        if "diverged" in line:
            print("   ", line)
    for reason in check.attrs["reasons"]:
        print("   ", reason.split(":")[0])


print("default:", end=" ")
told(default)
for times in (0.5, 2, 8):
    print(f"\n{times:g} times the step:", end=" ")
    kernel = UnderdampedLangevin(
        model, step_size=times * step, steps_per_draw=steps, preconditioner="low_rank"
    )
    try:
        told(bif.sample(kernel, **rows, chains=CHAINS, draws=DRAWS, seed=0))
    except bif.BIFError as error:
        print(f"{type(error).__name__}\n    {error}")

# %% [markdown]
# Half the step has the same energy and fewer effective draws: the same answer at a higher price. Too
# large a step is noticed. The notes say of each chain that it diverged and what was done, and where half the
# step is too large as well, an error says what to do. Between the two little happens, because the
# law of this kernel is exact for a Gaussian posterior at any stable step.
#
# That is not so for SGLD, whose law widens with the step, and with the noise of its minibatches. The
# energy shows it: half of $d$ is its mean in a Gaussian posterior, and what is above is heat.


# %%
def heated(step_size):
    kernel = SGLD(
        model,
        step_size=step_size,
        batch_size=64,
        steps_per_draw=5,
        preconditioner="low_rank",
    )
    run = bif.sample(kernel, **rows, chains=CHAINS, draws=40, seed=0)
    check = bif.diagnose(run, verbose=False)
    energy, share = (float(check[name]) for name in ("energy_ratio", "gradient_noise_share"))
    print(f"energy over d/2 {energy:.2f}, {share:.0%} of the noise from minibatches")
    return run


print("its default:", end=" ")
slow = heated(None)
print("twice that: ", end=" ")
fast = heated(2 * slow.attrs["step_size"])

# %% [markdown]
# So leave the step to warm-up. If you set it, make one run with half of it: resolved scores should
# agree within their errors.
#
# ## Symptoms and remedies
#
# | what you see | what it means | what to do |
# |---|---|---|
# | low agreement, few scores resolved, all else passes | noise | more draws, `draws="auto"`; or a larger `localization` |
# | the rise of the loss is large | the draws are other networks | a larger `localization`; a larger `inverse_temperature` with it |
# | the rise is below zero | the trained weights are no minimum | train further; a larger `localization` |
# | the ranking is that of products of gradients | hardly any direction moves | a smaller `localization` |
# | energy over $d/2$ is well above 1 | the step or the minibatches heat the chain | a smaller `step_size`, a larger `batch_size`, or full gradients |
# | chains diverge | the step is too large | leave `step_size` out; a larger `localization` |
# | low ESS, drift, a high R-hat | the chain hardly moves, or has not arrived | leave `step_size` and `steps_per_draw` out; more `warmup` |
#
# More of them are in [Gotchas](../gotchas.md). What more draws are worth is measured in
# [Few draws, settled ranks](few_draws.md).
