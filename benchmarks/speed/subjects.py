"""What is compared: ``sample`` in both backends, bare loops, devinterp.

Each takes a case and returns a function of a number of draws, which does all the work of them: SGLD
steps on batches of 64, and after each the losses of all rows.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed.cases import BATCH, LOCALIZATION, STEP, Case, jax_network, rows, torch_network

__all__ = ["SUBJECTS"]


# Images a loop by hand scores at once: what was quickest.
IMAGES_AT_ONCE = 256
Run = Callable[[int], Any]


def pyro(case: Case) -> Run:
    """``ppl_bif.sample`` of a torch module."""
    from ppl_bif.pyro import SGLD, localize

    return _sampler(SGLD, localize(torch_network(case.network), **_model(case)), case)


def numpyro(case: Case) -> Run:
    """``ppl_bif.sample`` of a JAX function."""
    from ppl_bif.numpyro import SGLD, localize

    apply, weights = jax_network(case.network)
    return _sampler(SGLD, localize(apply, weights, **_model(case)), case)


def _model(case: Case) -> dict[str, Any]:
    return {"likelihood": case.likelihood, "localization": LOCALIZATION}


def _sampler(kernel: Any, model: Any, case: Case) -> Run:
    import ppl_bif as bif

    train, query = rows(case.network)
    settings = {"train": train, "query": query, "chains": case.chains, "warmup": 0}
    made = kernel(model, batch_size=BATCH, step_size=STEP, steps_per_draw=case.thinning)

    def run(draws: int) -> Any:
        if not case.whole:
            return bif.sample(made, draws=draws, progress=False, **settings)
        with tempfile.TemporaryDirectory() as folder:
            return bif.sample(made, draws=draws, progress=True, store=f"{folder}/run", **settings)

    return run


def bare_torch(case: Case) -> Run:
    """A loop by hand: gradients and losses, kept in memory."""
    import torch
    from torch.func import functional_call, grad, vmap
    from torch.nn.functional import cross_entropy

    network = torch_network(case.network).requires_grad_(False)
    x, y = (torch.as_tensor(np.concatenate(part)) for part in zip(*rows(case.network), strict=True))
    if x.ndim == 4:
        x = x.to(memory_format=torch.channels_last)
    size = IMAGES_AT_ONCE if x.ndim == 4 else len(x)
    chunks = list(zip(x.split(size), y.split(size), strict=True))
    n = len(rows(case.network)[0][1])
    mode = dict(network.named_parameters())

    def loss(weights: Any, x: Any, y: Any) -> Any:
        logits = functional_call(network, weights, x)
        if case.likelihood == "tokens":
            logits = logits.transpose(1, 2)
        return cross_entropy(logits, y, reduction="none")

    def slope(weights: Any, x: Any, y: Any) -> Any:
        return grad(lambda w: n / BATCH * loss(w, x, y).sum())(weights)

    if case.together:
        of_all, score_all = vmap(slope), vmap(loss, in_dims=(0, None, None))
    else:
        of_all, score_all = _in_turn(slope, 3), _in_turn(loss, 1)

    @torch.no_grad()
    def run(draws: int) -> list[Any]:
        weights = {k: w.expand(case.chains, *w.shape).clone() for k, w in mode.items()}
        kept = []
        for _ in range(draws):
            for _ in range(case.thinning):
                chosen = torch.randint(n, (case.chains, BATCH))
                for k, g in of_all(weights, x[chosen], y[chosen]).items():
                    w = weights[k]
                    pull = LOCALIZATION * (w - mode[k])
                    weights[k] = w - STEP / 2 * (g + pull) + STEP**0.5 * torch.randn_like(w)
            kept.append(torch.cat([score_all(weights, *chunk) for chunk in chunks], dim=1))
        return kept

    return run


def _in_turn(function: Any, mapped: int) -> Any:
    """Call a function of one chain for each; so many arguments have a chain axis."""
    import torch
    from torch.utils import _pytree as pytree

    def call(*args: Any) -> Any:
        own, common = args[:mapped], args[mapped:]
        chains = len(pytree.tree_leaves(own)[0])
        found = [
            function(*pytree.tree_map(lambda t, c=c: t[c], own), *common) for c in range(chains)
        ]
        return pytree.tree_map(lambda *each: torch.stack(each), *found)

    return call


def bare_jax(case: Case) -> Run:
    """A loop by hand: one jitted program per draw, losses kept in memory."""
    import jax
    import jax.numpy as jnp

    apply, mode = jax_network(case.network)
    x, y = (jnp.concatenate(part) for part in zip(*rows(case.network), strict=True))
    n = len(rows(case.network)[0][1])

    def losses(weights: Any, x: Any, y: Any) -> Any:
        logits = apply(weights, x)
        chosen = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(logits, axis=1) - chosen

    def step(weights: Any, key: Any) -> Any:
        pick, *noises = jax.random.split(key, 1 + len(weights))
        chosen = jax.random.randint(pick, (BATCH,), 0, n)
        slope = jax.grad(lambda w: n / BATCH * losses(w, x[chosen], y[chosen]).sum())(weights)
        return {
            k: w
            - STEP / 2 * (slope[k] + LOCALIZATION * (w - mode[k]))
            + STEP**0.5 * jax.random.normal(noise, w.shape)
            for noise, (k, w) in zip(noises, weights.items(), strict=True)
        }

    @jax.jit
    def draw(weights: Any, key: Any) -> tuple[Any, Any]:
        def move(i: Any, weights: Any) -> Any:
            keys = jax.random.split(jax.random.fold_in(key, i), case.chains)
            return jax.vmap(step)(weights, keys)

        weights = jax.lax.fori_loop(0, case.thinning, move, weights)
        return weights, jax.vmap(losses, in_axes=(0, None, None))(weights, x, y)

    def run(draws: int) -> list[Any]:
        weights = {k: jnp.broadcast_to(w, (case.chains, *w.shape)) for k, w in mode.items()}
        kept = []
        for i in range(draws):
            weights, found = draw(weights, jax.random.fold_in(jax.random.key(0), i))
            kept.append(np.asarray(found))
        return kept

    return run


def devinterp(case: Case) -> Run:
    """devinterp's ``sample``, which takes token ids: they name rows, and the loss looks them up."""
    import torch
    from devinterp.slt.sampling import sample
    from torch.nn.functional import cross_entropy

    train, query = rows(case.network)
    x, y = (torch.as_tensor(np.concatenate(part)) for part in zip(train, query, strict=True))
    ids = [{"input_ids": torch.tensor([i, 0])} for i in range(len(y))]

    def loss(network: Any, ids: Any) -> Any:
        return cross_entropy(network(x[ids[:, 0]]), y[ids[:, 0]], reduction="none")[:, None]

    # Observables are whole batches: 5 of the 1,797 rows are left out.
    batches = len(y) // BATCH
    observables = {"rows": (ids[: batches * BATCH], batches)} if case.scored else {}

    def run(draws: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            sample(
                torch_network(case.network),
                ids[: len(train[1])],
                observables,
                lr=STEP,
                n_beta=float(len(train[1])),
                localization=LOCALIZATION,
                num_chains=case.chains,
                num_draws=draws,
                num_burnin_steps=0,
                num_steps_bw_draws=1,
                batch_size=BATCH,
                sampling_method="sgmcmc_sgld",
                num_init_loss_batches=1,
                init_seed=0,
                loss_fn=loss,
                device="cpu",
                output_path=f"{folder}/run.zarr",
            )

    return run


SUBJECTS: dict[str, Callable[[Case], Run]] = {
    "pyro": pyro,
    "numpyro": numpyro,
    "bare_torch": bare_torch,
    "bare_jax": bare_jax,
    "devinterp": devinterp,
}
