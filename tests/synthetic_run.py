"""A run that no sampler made: log-likelihoods that wander like a chain, digits as pictures."""

from typing import Any

import numpy as np
import xarray as xr
from sklearn.datasets import load_digits

from ppl_bif.layout import Trace
from ppl_bif.places import place
from ppl_bif.schema import group, inference_data, root_attrs
from ppl_bif.store import create_store, finish_store

__all__ = ["QUERY_IDS", "make_run", "store_run"]

QUERY_IDS = ["q0", "q1", "<script>alert(1)</script>", "q3", "[red]q4[/red]", "q5"]


def make_run(
    chains: int = 4,
    draws: int = 200,
    train: int = 40,
    pictures: bool = True,
    diverged: bool = False,
) -> Any:
    """Build a run of AR(1) log-likelihoods in which rows of one digit influence each other."""
    rng = np.random.default_rng(0)
    digits = load_digits()
    ids = {"train": np.arange(train) + 100, "query": np.array(QUERY_IDS)}
    rows = {"train": np.arange(train), "query": 600 + np.arange(len(QUERY_IDS))}
    walk = _ar1(rng, chains, draws, 10)
    likelihood = {
        name: -0.3 + 0.2 * walk[..., digits.target[at]] + 0.1 * _ar1(rng, chains, draws, len(at))
        for name, at in rows.items()
    }
    stats = _stats(-likelihood["train"].mean(-1), rng, diverged)
    data: dict[str, Any] = {"class_name": ("class", np.array([f"digit {i}" for i in range(10)]))}
    for name, at in rows.items():
        data[f"{name}_loss_at_mode"] = (name, np.full(len(at), 0.25))
        data[f"{name}_target"] = (name, digits.target[at])
        if pictures:
            data[f"{name}_image"] = ((name, "y", "x"), digits.images[at])
    data["query_prediction"] = ("query", np.r_[7, digits.target[rows["query"][1:]]])
    draw = {"chain": np.arange(chains), "draw": np.arange(draws)}
    groups = {
        "log_likelihood": xr.Dataset(
            {f"{name}_obs": (("chain", "draw", name), value) for name, value in likelihood.items()},
            coords={**draw, **ids},
        ),
        "sample_stats": xr.Dataset(stats, coords=draw),
        "constant_data": xr.Dataset(data, coords=ids),
    }
    return inference_data(groups, _attrs(chains, draws, train))


def _ar1(rng: np.random.Generator, chains: int, draws: int, points: int) -> np.ndarray:
    steps = rng.normal(size=(chains, draws, points))
    for t in range(1, draws):
        steps[:, t] = 0.7 * steps[:, t - 1] + 0.714 * steps[:, t]
    return steps


def _stats(loss: np.ndarray, rng: np.random.Generator, diverged: bool) -> dict[str, Any]:
    bad = np.zeros(loss.shape, dtype=bool)
    if diverged:
        bad[-1, loss.shape[1] // 2 :] = True
    names = {"lp": -loss, "train_loss": np.where(bad, np.nan, loss), "diverging": bad}
    names |= {"distance": np.abs(1 + 0.1 * rng.normal(size=loss.shape)), "minibatch_loss": loss}
    names |= {"gradient_noise": np.full(loss.shape, 0.1), "step_size": np.full(loss.shape, 1e-4)}
    return {name: (("chain", "draw"), value) for name, value in names.items()}


def _attrs(chains: int, draws: int, train: int) -> dict[str, Any]:
    return {
        "inference_library": "numpyro",
        "kernel": "SGLD",
        "step_size": 1e-4,
        "batch_size": 20,
        "steps_per_draw": 5,
        "localization": 100.0,
        "inverse_temperature": 1.0,
        "likelihood": "categorical",
        "chains": chains,
        "draws": draws,
        "seed": 0,
        "fingerprint": "0123456789abcdef",
        "num_weights": 4810,
        "num_train": train,
    }


def store_run(run: Any, path: Any) -> Any:
    """Write a run to disk as `ppl_bif.sample` would and return the path."""
    names = ("log_likelihood", "sample_stats", "constant_data")
    groups = {name: found for name in names if (found := group(run, name)) is not None}
    attrs, where = root_attrs(run), place(path)
    traces, fixed = {}, {}
    for name, dataset in groups.items():
        drawn = [key for key, array in dataset.items() if "draw" in array.dims]
        traces |= {f"{name}/{key}": dataset[key] for key in drawn}
        fixed[name] = dataset.drop_vars([*drawn, "draw"], errors="ignore")
    described = {k: Trace(a.dims, a.shape, str(a.dtype)) for k, a in traces.items()}
    once = {"chains_at_once": run["log_likelihood"].sizes["chain"], "draws_at_once": 100}
    arrays = create_store(where, described, fixed, attrs, **once)
    for key, array in traces.items():
        arrays[key][:] = array.values
    finish_store(where, attrs, attrs["draws"])
    return path
