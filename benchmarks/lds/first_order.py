"""BIF's first order at the draws: ``python -m benchmarks.lds.first_order TASK``.

Of a Gaussian posterior with covariance S, the covariance of two functions of the weights is a sum
over orders, the first of which is E[gradient]' S E[gradient]. Here the gradients are means over a
few draws, those of the queries and those of the training rows from different chains, and S is the
inverse of the curvature at other draws where that exceeds the localization's, by Lanczos, and the
prior's elsewhere. What is left of the covariance is estimated by the draws, with less noise: the
query's log-likelihood less its control variate by Stein's identity. Lines go to
``results/first_order.jsonl``.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.func import functional_call, grad, jvp

import ppl_bif as bif
from benchmarks.lds import tasks
from benchmarks.lds.damped import flat, shaped
from benchmarks.lds.networks import each_loss, trained
from benchmarks.lds.ours import localized
from benchmarks.lds.peer_gradients import Rows, gradients, placed
from ppl_bif.evaluation import lds
from ppl_bif.pyro.curvature import lanczos
from ppl_bif.schema import group

RESULTS = Path(__file__).parent / "results" / "first_order.jsonl"
CHAINS, DRAWS = 4, (62, 125, 250)
# Directions of the curvature; draws of a chain that gradients, and curvatures, are means over.
RANK, GRADIENTS, CURVATURES = 40, 60, 2


def main() -> None:
    """Sample, score at several numbers of draws, and append what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--model", type=json.loads, default={}, help="of localize, JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = tasks.load(options.task)
    for seed in options.seeds:
        for line in judged(task, seed, options.model):
            print(line, flush=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps({"task": task.name, "seed": seed, **line}) + "\n")


def judged(task: tasks.Task, seed: int, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give LDS of the scores by draws, of the first order, and of both together."""
    model = localized(task, "pyro", settings)
    rows = {"train": task.train, "query": task.query}
    run = bif.sample(
        model, **rows, chains=CHAINS, draws=DRAWS[-1], seed=seed, progress=False, save_weights=True
    )
    for draws in DRAWS:
        some = run.isel(draw=slice(0, draws))
        started = time.perf_counter()
        first, rest = orders(task, some)
        seconds = time.perf_counter() - started
        found = {
            "plain": scores(some, shrink=None),
            "shrunk": scores(some),
            "first order": first,
            "first order + rest": first + scores(rest, shrink=None),
            "first order + rest, shrunk": first + scores(rest),
        }
        yield {
            "draws": draws,
            "localization": round(float(run.attrs["localization"]), 1),
            **{name: round(quality(score, task), 4) for name, score in found.items()},
            "seconds": round(seconds, 1),
        }


def quality(score: np.ndarray, task: tasks.Task) -> float:
    """LDS of scores ``(query, train)``."""
    return float(lds(score, task.truth, resamples=1)["mean"])


def scores(run: Any, **settings: Any) -> np.ndarray:
    """Scores ``(query, train)`` of a run."""
    return bif.influence(run, **settings)["influence"].transpose("query", "train").values


class Posterior(NamedTuple):
    """Draws ``(chain, draw, weight)`` of a localized network, and what they are of."""

    network: torch.nn.Module
    mode: Tensor
    draws: Tensor
    localization: float
    train: Rows
    query: Rows

    @classmethod
    def of(cls, task: tasks.Task, run: Any) -> "Posterior":
        """Take the weights out of a run that saved them."""
        network, kept = trained(task), group(run, "posterior")
        named = {name: w.detach() for name, w in network.named_parameters()}
        draws = [kept[name].values.reshape(*kept[name].shape[:2], -1) for name in named]
        weights = torch.from_numpy(np.concatenate(draws, axis=-1))
        gamma = float(run.attrs["localization"])
        return cls(network, flat(named), weights, gamma, *placed(task, "cpu"))

    def named(self, at: Tensor) -> dict[str, Tensor]:
        """Give weights by name."""
        return shaped(at, dict(self.network.named_parameters()))

    def loss(self, at: Tensor) -> Tensor:
        """Loss, summed over the training rows."""
        x, y = self.train
        return each_loss(functional_call(self.network, self.named(at), x), y).sum()

    def potential_gradient(self, at: Tensor) -> Tensor:
        """Gradient of the potential: of the loss and of the prior."""
        return grad(self.loss)(at) + self.localization * (at - self.mode)

    def slopes(self, chains: slice, rows: Rows) -> Tensor:
        """Gradients of the rows' log-likelihoods, ``(row, weight)``, means over draws of chains."""
        some = self.some(chains, GRADIENTS)
        return -sum(gradients(self.network, rows, self.named(at)) for at in some) / len(some)

    def some(self, chains: slice, count: int) -> Tensor:
        """So many draws of each of some chains, evenly spread."""
        drawn = self.draws.shape[1]
        chosen = torch.linspace(0, drawn - 1, min(count, drawn)).long()
        return self.draws[chains][:, chosen].flatten(0, 1)

    def spread(self) -> "Spread":
        """Return the posterior's covariance by the curvature at some draws."""
        points = self.some(slice(None), CURVATURES)

        def product(vectors: Tensor) -> Tensor:
            images = [jvp(grad(self.loss), (at,), (vectors[0],))[1] for at in points]
            return torch.stack(images).mean(0, keepdim=True)

        values, vectors = lanczos(product, self.mode[None], rank=RANK)
        return Spread(values[0].clamp_min(0), vectors[0], self.localization)


class Spread(NamedTuple):
    """Covariance of the prior, less what eigenvectors ``(direction, weight)`` take from it."""

    curvature: Tensor
    directions: Tensor
    localization: float

    def times(self, vectors: Tensor) -> Tensor:
        """Multiply vectors ``(vector, weight)``."""
        less = 1 / (self.curvature + self.localization) - 1 / self.localization
        within = (vectors @ self.directions.T) * less
        return vectors / self.localization + within @ self.directions


def orders(task: tasks.Task, run: Any) -> tuple[np.ndarray, Any]:
    """Give the first order ``(query, train)``, and the run with the rest of the queries' traces.

    Directions that queries go are by the slopes in one half of the chains, and all else by the
    other half; then the other way round.
    """
    posterior = Posterior.of(task, run)
    spread, half = posterior.spread(), len(posterior.draws) // 2
    first, rest = [], []
    for own, other in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        direction = spread.times(posterior.slopes(other, posterior.query))
        first.append(direction @ posterior.slopes(own, posterior.train).T)
        rest += [variate(posterior, chain, direction) for chain in posterior.draws[own]]
    traces = group(run, "log_likelihood").load()
    left = traces["query_obs"] - np.stack(rest)
    return torch.stack(first).mean(0).numpy(), replaced(run, traces.assign(query_obs=left))


def variate(posterior: Posterior, chain: Tensor, direction: Tensor) -> np.ndarray:
    """Give Stein's control variates of the queries, ``(draw, query)``: their mean is 0."""
    return torch.stack([direction @ posterior.potential_gradient(at) for at in chain]).numpy()


def replaced(run: Any, traces: xr.Dataset) -> Any:
    """Return a copy of a run with other traces."""
    other = run.copy()
    other["log_likelihood"] = traces
    return other


if __name__ == "__main__":
    main()
