"""Bayesian influence functions by devinterp, over a handful of its sampler's settings."""

import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.lds.networks import trained
from benchmarks.lds.result import Result
from benchmarks.lds.tasks import Task
from ppl_bif.evaluation import lds

SEED, CHAINS = 100, 4
# Batches of the loss at the start, which `sample` measures whether wanted or not.
INITIAL_BATCHES = 32


class Setting(NamedTuple):
    """Arguments of devinterp's ``sample``; those not named here stay at its defaults."""

    lr: float
    n_beta: float
    localization: float
    num_steps_bw_draws: int = 1
    num_burnin_steps: int = 0
    num_draws: int = 250
    batch_size: int = 32
    sampling_method: str = "rmsprop_sgld"


def grid(n: int) -> Iterator[Setting]:
    """Its README's n beta of 30, its n beta = n / log n, and the posterior's n beta = n."""
    for n_beta in (30.0, n / np.log(n), float(n)):
        for lr in (1e-5, 1e-4, 1e-3):
            for localization in (1.0, 100.0, 1000.0):
                yield Setting(lr, float(n_beta), localization)


def thinned(best: Setting) -> Iterator[Setting]:
    """Ten steps a draw, at other steps and pulls around the best of the grid."""
    for step in (0.1, 0.3, 1.0, 3.0):
        for pull in (0.3, 1.0, 3.0):
            lr, localization = best.lr * step, best.localization * pull
            yield best._replace(lr=lr, localization=localization, num_steps_bw_draws=10)


def transferred(n: int) -> Iterator[Setting]:
    """What was best of all on the MLP's truth, and steps around it."""
    for lr in (1e-5, 3e-5, 1e-4):
        yield Setting(lr, float(n / np.log(n)), localization=100.0, num_steps_bw_draws=10)


def scores(task: Task, networks: int, device: str) -> Iterator[Result]:
    """Run the README's setting, a grid, and longer what this very truth says is best of it.

    The grid is searched on the MLP; on the CNNs, which cost several times as much, around its best.
    """
    if networks != 1:
        raise ValueError("devinterp is run at one network: pass --networks 1")
    readme = Setting(lr=1e-3, n_beta=30.0, localization=0.0)
    yield from run(task, readme, "README's lr and n beta")
    yield from run(task, readme._replace(num_draws=1000), "README's lr and n beta")
    n = len(task.train[1])
    if task.name != "digits_mlp":
        best = yield from _search(task, transferred(n), "around the best on the MLP")
        yield from run(task, best._replace(num_draws=1000), "best of those, more draws")
        return
    best = yield from _search(task, grid(n), "grid")
    yield from run(task, best._replace(num_draws=1000), "best of the grid, more draws")
    best = yield from _search(task, thinned(best), "around the best, more steps a draw")
    yield from run(task, best._replace(num_draws=1000), "best of those, more draws")


def _search(task: Task, tried: Iterable[Setting], role: str) -> Generator[Result, None, Setting]:
    """Run settings, and return the one with the best LDS: tuned on the test itself."""
    found: list[tuple[float, Setting]] = []
    for setting in tried:
        for result in run(task, setting, role):
            found.append((float(lds(result.score.T, task.truth, resamples=0)["mean"]), setting))
            yield result
    return max(found)[1]


def run(task: Task, setting: Setting, role: str) -> Iterator[Result]:
    """Sample once, and score in three ways; nothing where a chain failed."""
    import_module("devinterp.slt.bif")  # not in the seconds
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        tree, rows = _sample(task, setting, f"{folder}/run.zarr")
        losses = tree["loss_rows"].values[..., 0]
        sampled = time.perf_counter() - started
        if not np.isfinite(losses).all() or (losses == 0).all(axis=-1).any():
            print(f"a chain failed: {setting}", flush=True)
            return
        for kind, of in KINDS.items():
            started = time.perf_counter()
            score = _square_to_score(of(tree, losses), rows, task)
            seconds = sampled + time.perf_counter() - started
            used = {**setting._asdict(), "num_chains": CHAINS, "score": kind}
            passes = _passes(setting, len(task.train[1]) + len(task.query[1]))
            yield Result(used, score, passes, seconds, role, SEED)


def _sample(task: Task, setting: Setting, path: str) -> tuple[Any, np.ndarray]:
    """Run its sampler on row numbers, and return the draws with the row of each column."""
    from devinterp.slt.sampling import sample

    n, total = len(task.train[1]), len(task.train[1]) + len(task.query[1])
    # Observables are whole batches without repeats: rows past the last are copies of the first.
    batches = -(-total // setting.batch_size)
    ids = [{"input_ids": torch.tensor([i, 0])} for i in range(batches * setting.batch_size)]
    tree = sample(
        trained(task),
        ids[:n],
        {"rows": (ids, batches)},
        **setting._asdict(),
        num_chains=CHAINS,
        num_init_loss_batches=INITIAL_BATCHES,
        init_seed=SEED,
        loss_fn=_losses_by_row(task),
        device="cpu",
        output_path=path,
    )
    return tree, tree["input_ids_rows"].values[:, 0]


def _losses_by_row(task: Task) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    x = torch.from_numpy(np.concatenate([task.train[0], task.query[0]]))
    y = torch.from_numpy(np.concatenate([task.train[1], task.query[1]]))

    def loss(network: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        rows = ids[:, 0] % len(y)
        return cross_entropy(network(x[rows]), y[rows], reduction="none")[:, None]

    return loss


def _by_devinterp(covariance: bool) -> Callable[[Any, np.ndarray], np.ndarray]:
    def square(tree: Any, losses: np.ndarray) -> np.ndarray:
        from devinterp.slt.bif import compute_bif

        found = compute_bif(
            tree,
            correlation_method="sequence",
            loss_keys=["rows"],
            compute_covariance=covariance,
            device="cpu",
        )
        return np.nan_to_num(found["influences"].values)

    return square


def _within_chains(tree: Any, losses: np.ndarray) -> np.ndarray:
    centred = (losses - losses.mean(axis=1, keepdims=True)).reshape(-1, losses.shape[-1])
    return centred.T @ centred / len(centred)


KINDS = {
    "compute_bif covariance": _by_devinterp(covariance=True),
    "compute_bif correlation": _by_devinterp(covariance=False),
    "covariance within chains": _within_chains,
}


def _square_to_score(square: np.ndarray, rows: np.ndarray, task: Task) -> np.ndarray:
    """Put columns in the rows' order and keep ``(train, query)``."""
    n, total = len(task.train[1]), len(task.train[1]) + len(task.query[1])
    place = np.empty(len(rows), int)
    place[rows] = np.arange(len(rows))
    return square[np.ix_(place[:n], place[n:total])]


def _passes(setting: Setting, rows: int) -> int:
    steps = setting.num_draws * setting.num_steps_bw_draws + setting.num_burnin_steps
    drawn = CHAINS * (3 * steps * setting.batch_size + setting.num_draws * rows)
    return drawn + INITIAL_BATCHES * setting.batch_size
