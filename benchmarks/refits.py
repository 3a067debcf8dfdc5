"""Foretold shifts against refits: ``python -m benchmarks.refits``.

A school, or a county of radon's, gets another weight. ``bif.reweight`` foretells from one NUTS
run what becomes of the posterior means; NUTS then fits them anew. Slopes are of refitted on
foretold shifts, each in units of its posterior standard deviation: 1 is right.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import ppl_bif as bif
from ppl_bif.schema import arviz, inference_data
from ppl_bif_models import eight_schools, radon

RESULTS = Path(__file__).parent / "refits.jsonl"
METHODS = {"shift": "mcse", "second_order": "second_order_mcse", "importance": "importance_mcse"}
CHAINS, SHORT = 4, 150


class Case(NamedTuple):
    """A posterior, and the groups of rows that get other weights.

    Attributes
    ----------
    model
        Takes the rows' weights.
    labels
        The group of each row.
    groups
        Those that are tried.
    observable
        What is foretold: these variables' means.
    draws
        Of each chain, after 1,000 of warm-up.
    weights
        That the groups get.
    anew
        Draws of a refit; 0: as many as of the first fit, after as much warm-up. Fewer begin where
        the first fit ended, after 150 of warm-up.
    accept
        Acceptance that NUTS aims at.
    """

    model: Callable[..., None]
    labels: np.ndarray
    groups: list[Any]
    observable: list[str]
    draws: int
    weights: tuple[float, ...] = (0.9, 0.5, 0.0, 2.0)
    anew: int = 0
    accept: float = 0.95


def main() -> None:
    """Fit, foretell, fit anew, and print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, help="only this one")
    only = parser.parse_args().case
    for name in [only] if only else CASES:
        for line in judged(name, CASES[name]()):
            print(line, flush=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")


def schools() -> Case:
    """Give the eight schools, one row each."""
    rows = eight_schools.SCHOOLS
    return Case(eight_schools.model, rows, rows.tolist(), ["mu", "tau"], 10_000)


def counties(count: int = 12) -> Case:
    """Give counties of very different sizes, from 116 homes to one."""
    data = radon.load()
    by_size = np.argsort(-np.bincount(data.county), kind="stable")
    some = by_size[np.unique(np.geomspace(1, len(by_size), count + 1).astype(int)) - 1]
    return Case(
        lambda weight: radon.model(data, weight),
        data.names[data.county],
        data.names[some].tolist(),
        ["intercept", "slope", "noise"],
        2_000,
        (0.5, 0.0, 2.0),
        300,
        0.85,
    )


CASES: dict[str, Callable[[], Case]] = {"eight schools": schools, "radon": counties}


def judged(name: str, case: Case) -> Iterator[dict[str, Any]]:
    """Hold each way to foretell against refits, by weight."""
    fit = sampler(case)
    base = fit(np.ones(len(case.labels)), seed=0)
    now, noise = means(base, case.observable)
    sd = bif.jackknife(base, observable=case.observable, groups=case.labels)["posterior_sd"].values
    for weight in case.weights:
        foretold = [foretell(base, case, group, weight) for group in case.groups]
        refitted, errors = [], []
        for at, group in enumerate(case.groups):
            anew = fit(np.where(case.labels == group, weight, 1.0), seed=1 + at)
            mean, error = means(anew, case.observable)
            refitted.append((mean - now) / sd)
            errors.append(np.hypot(error, noise) / sd)
        truth, error = np.array(refitted), np.array(errors)
        line = {"case": name, "weight": weight, "groups": len(case.groups)}
        line["largest"] = round(float(np.abs(truth).max()), 3)
        for method, own in METHODS.items():
            said = np.array([one[method][0] for one in foretold]) / sd
            blur = np.array([one[own][0] for one in foretold]) / sd
            line[method] = slope(truth, error, said, blur)
            if method == "shift":
                flat = ~np.array([one["curved"][0] for one in foretold])
                line["shift, not curved"] = slope(
                    *(part[flat] for part in (truth, error, said, blur))
                )
                line["not curved"] = int(flat.sum())
        line["curved"] = int(sum(bool(one["curved"].any()) for one in foretold))
        line["pareto_k"] = round(max(float(one["pareto_k"][0]) for one in foretold), 2)
        yield line


def foretell(base: Any, case: Case, group: Any, weight: float) -> xr.Dataset:
    """Foretell, quietly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return bif.reweight(base, {group: weight}, observable=case.observable, groups=case.labels)


def sampler(case: Case) -> Callable[..., Any]:
    """Make a function from weights to a fit by NUTS."""
    import jax
    from numpyro.infer import MCMC, NUTS, log_likelihood

    def chains(num_warmup: int, num_samples: int) -> Any:
        return MCMC(
            NUTS(case.model, target_accept_prob=case.accept),
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
            jit_model_args=True,
        )

    first = chains(1000, case.draws)
    others = chains(SHORT, case.anew) if case.anew else first

    def fit(weight: np.ndarray, seed: int) -> Any:
        mcmc = others if seed else first
        start = first.last_state.z if seed and case.anew else None
        mcmc.run(jax.random.key(seed), weight, init_params=start)
        samples = mcmc.get_samples(group_by_chain=True)
        groups = {"posterior": samples}
        if not seed:
            groups["log_likelihood"] = log_likelihood(case.model, samples, weight, batch_ndims=2)
        return inference_data(
            {name: xr.Dataset(dict(map(variable, kept.items()))) for name, kept in groups.items()},
            {},
        )

    return fit


def variable(named: tuple[str, Any]) -> tuple[str, xr.Variable]:
    """Name the dims of draws of a variable."""
    name, values = named
    dims = ("chain", "draw", *(f"{name}_{i}" for i in range(values.ndim - 2)))
    return name, xr.Variable(dims, np.asarray(values))


def means(idata: Any, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return posterior means and their Monte Carlo errors."""
    posterior = idata["posterior"]
    series = np.stack([posterior[name].values for name in names], axis=-1)
    halves = series.reshape(2 * len(series), -1, len(names)).mean(axis=1)
    errors = [float(arviz().mcse(posterior[name].values)) for name in names]
    return halves.mean(axis=0), np.array(errors)


def slope(truth: np.ndarray, error: np.ndarray, said: np.ndarray, blur: np.ndarray) -> list[float]:
    """Return the slope of truth on what was said, and its error from those of both."""
    # Noise of what is said would lower the slope.
    size = (said**2).sum() - (blur**2).sum()
    found = (truth * said).sum() / size
    spread = np.sqrt((said**2 * (error**2 + found**2 * blur**2)).sum()) / size
    return [round(float(found), 3), round(float(spread), 3)]


if __name__ == "__main__":
    main()
