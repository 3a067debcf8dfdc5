"""EK-FAC influence functions by kronfluence, over a grid of dampings."""

import time
from collections.abc import Iterator, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks.lds.networks import DECAY, each_loss, trained
from benchmarks.lds.result import Result
from benchmarks.lds.tasks import Task
from ppl_bif.text import IGNORED

# kronfluence's default is 1e-8; None is its heuristic, a tenth of the mean eigenvalue.
DAMPINGS = (1e-8, None, 1e-7, 1e-6, 1e-5, 1e-4, 5e-4, 1e-3, 1e-2, 1e-1, 1.0)
ROLES = {1e-8: "default", None: "heuristic"}
SEED = 0


def scores(
    task: Task, networks: int, device: str, dampings: Sequence[float | None] = DAMPINGS
) -> Iterator[Result]:
    """Give the mean of the scores over networks trained from the first seeds, by damping."""
    n, q, decay = len(task.train[1]), len(task.query[1]), DECAY.get(task.name)
    with TemporaryDirectory() as folder:
        fitted = [_fit(task, seed, f"{folder}/{seed}", device) for seed in range(networks)]
        for damping in dampings:
            made = [_score(analyzer, task, damping) for analyzer, _ in fitted]
            yield Result(
                {"damping": "0.1 of the mean eigenvalue" if damping is None else damping},
                np.mean([score for score, _ in made], axis=0),
                # Gradients of the rows for covariances, for eigenvalues, and for the scores.
                passes=networks * (9 * n + 3 * q),
                seconds=sum(s for _, s in fitted) + sum(s for _, s in made),
                role=ROLES.get(damping, "weight decay" if damping == decay else "grid"),
                seed=SEED,
            )


def _fit(task: Task, seed: int, folder: str, device: str) -> tuple[Any, float]:
    """Fit the factors on all rows; labels are drawn from the network (true Fisher)."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments

    started = time.perf_counter()
    torch.manual_seed(SEED)
    asked = _classification()
    network = prepare_model(trained(task, seed, device), asked)
    analyzer = Analyzer(
        "lds", network, asked, cpu=device == "cpu", disable_tqdm=True, output_dir=folder
    )
    rows, arguments = _dataset(task.train), FactorArguments(strategy="ekfac")
    analyzer.fit_all_factors("factors", rows, per_device_batch_size=512, factor_args=arguments)
    return analyzer, time.perf_counter() - started


def _score(analyzer: Any, task: Task, damping: float | None) -> tuple[np.ndarray, float]:
    from kronfluence.arguments import ScoreArguments

    started = time.perf_counter()
    name = f"damping-{damping}"
    analyzer.compute_pairwise_scores(
        scores_name=name,
        factors_name="factors",
        query_dataset=_dataset(task.query),
        train_dataset=_dataset(task.train),
        per_device_query_batch_size=len(task.query[1]),
        per_device_train_batch_size=512,
        score_args=ScoreArguments(damping_factor=damping),
    )
    # Query gradient by inverse by train gradient: what a row takes from the query's loss.
    score = analyzer.load_pairwise_scores(name)["all_modules"].numpy().T
    return score, time.perf_counter() - started


def _dataset(rows: tuple[np.ndarray, np.ndarray]) -> TensorDataset:
    return TensorDataset(*map(torch.from_numpy, rows))


def _classification() -> Any:
    from kronfluence.task import Task as KronfluenceTask

    class Classification(KronfluenceTask):
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False):
            logits, labels = model(batch[0]), batch[1]
            if sample:
                chances = logits.detach().softmax(dim=-1).flatten(0, -2)
                drawn = torch.multinomial(chances, 1).view(labels.shape)
                labels = torch.where(labels == IGNORED, labels, drawn)
            return each_loss(logits, labels).sum()

        def compute_measurement(self, batch: Any, model: nn.Module):
            return self.compute_train_loss(batch, model)

        def get_attention_mask(self, batch: Any):
            return None if batch[1].ndim == 1 else (batch[1] != IGNORED).long()

    return Classification()
