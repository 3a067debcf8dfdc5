"""Our scores in quanda's harness: an explainer that answers with them, and our retrainings."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from quanda.explainers.base import Explainer
from quanda.utils.datasets.dataset_handlers import get_dataset_handler
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ppl_bif.data import digest
from ppl_bif.evaluation.tables import outcomes, table

__all__ = ["BIFExplainer", "ground_truth"]


class BIFExplainer(Explainer):
    """Scores that are there already, as an explainer of quanda.

    A benchmark of quanda takes some of its test rows, and hands them over in batches. They are
    found among the queries by their content, bit by bit, and by their target; what is not found is
    refused. Where a benchmark asks about predictions (``use_predictions``), the scores have to be
    of queries with the predicted labels.

    Parameters
    ----------
    model, train_dataset, task, checkpoints, checkpoints_load_func
        As quanda hands them over. Of the model, only the device counts.
    scores
        What :func:`ppl_bif.influence` gave, or an array ``(query, train)``, in the order of the
        datasets. quanda's sign is ours: larger is more helpful to the query.
    queries
        The rows explained, in the order of the scores: the benchmark's whole dataset of test rows,
        or a tuple of arrays, inputs and targets. Their inputs must not vary from one reading to the
        next.
    self_influence
        Scores of the training rows on themselves, ``(train,)``, for metrics that rank by them.

    Raises
    ------
    ValueError
        If the scores do not fit the datasets, or differ between queries that are the same.

    Notes
    -----
    quanda names explanations that it keeps on disk by how the scores print, which leaves most of
    them out: give each matrix an ``explanations_id`` of its own.

    Examples
    --------
    ``benchmark.evaluate(BIFExplainer, {"scores": scores, "queries": (xq, yq)})``
    """

    accepted_tasks = ("image_classification", "text_classification", "causal_lm")

    def __init__(
        self,
        model: Any,
        train_dataset: Any,
        scores: Any,
        queries: Any,
        *,
        self_influence: Any = None,
        task: Any = "image_classification",
        checkpoints: Any = None,
        checkpoints_load_func: Any = None,
    ) -> None:
        super().__init__(model, train_dataset, task, checkpoints, checkpoints_load_func)
        if isinstance(queries, tuple):
            queries = TensorDataset(*(torch.as_tensor(part) for part in queries))
        found = table(scores)
        _check(len(self.train_dataset), found.shape[1], "training")
        _check(len(queries), found.shape[0], "query")
        self._rows = _found(queries, found)
        self._scores = torch.from_numpy(found.copy()).to(self.device)
        self._own = None if self_influence is None else self._as_own(self_influence)

    def explain(self, test_data: Any, targets: Any) -> Tensor:
        """Return the scores of these test rows, ``(test row, train)``.

        Raises
        ------
        ValueError
            If a row, or a row with this target, is none of the queries.
        """
        rows = [
            self._row(place, content, target)
            for place, (content, target) in enumerate(_contents(test_data, targets))
        ]
        return self._scores[rows]

    def self_influence(self, batch_size: int = 32) -> Tensor:
        """Return the scores of the training rows on themselves, ``(train,)``.

        Raises
        ------
        ValueError
            If none were handed over.
        """
        if self._own is None:
            raise ValueError(
                "scores (query, train) do not say what a training row does to itself: hand over "
                "self_influence (train,), the diagonal of the scores of the training rows as "
                "queries"
            )
        return self._own

    def _row(self, place: int, content: str, target: str) -> int:
        known = self._rows.get(content)
        if known is None:
            raise ValueError(
                f"row {place} of the test batch is none of the queries: their inputs have to be "
                "the same bit by bit, of the same type"
            )
        if target not in known:
            raise ValueError(
                f"row {place} of the test batch is asked about with target {target}, its scores "
                f"are of {', '.join(known)}: hand over scores of queries with the targets asked "
                "about"
            )
        return known[target]

    def _as_own(self, given: Any) -> Tensor:
        own, rows = np.array(given, float), len(self.train_dataset)
        if own.shape != (rows,):
            raise ValueError(f"self_influence has shape {own.shape}, expected ({rows},)")
        if not np.isfinite(own).all():
            raise ValueError("self_influence is not all finite: did the method diverge?")
        return torch.from_numpy(own).to(self.device)


def ground_truth(
    truth: xr.Dataset, *, output: str = "loss"
) -> tuple[list[list[int]], dict[int, Tensor]]:
    """Return retrainings as quanda's ``LinearDatamodelingMetric`` takes them.

    Parameters
    ----------
    truth
        What :func:`ppl_bif.evaluation.retrain` gave.
    output
        Of the truth; of a loss, minus its values, so that larger is better.

    Returns
    -------
    subset_ids, subset_logits
        Rows of each subset, for the metric; and by subset its values ``(query,)``, mean over seeds,
        for its ``update``, which takes two queries at least. They stand for what networks from
        ``subset_ckpt_filenames`` would give: none is loaded.

    Raises
    ------
    ValueError
        If the truth has no such output, or it is not finite.

    Examples
    --------
    >>> rows, values = ground_truth(truth)  # doctest: +SKIP
    >>> metric = LinearDatamodelingMetric(
    ...     model, train_set, subset_ids=rows, m=len(rows), subset_ckpt_filenames=[""] * len(rows)
    ... )  # doctest: +SKIP
    >>> metric.update(explainer.explain(xq, yq), yq, xq, subset_logits=values)  # doctest: +SKIP
    >>> metric.compute()["score"]  # doctest: +SKIP
    """
    masks = truth["mask"].transpose("subset", "train").values
    values = torch.from_numpy(outcomes(truth, output))
    return [np.flatnonzero(mask).tolist() for mask in masks], dict(enumerate(values))


def _found(queries: Dataset, scores: np.ndarray) -> dict[str, dict[str, int]]:
    """Return the number of each row of scores by its content and target, read as quanda does."""
    rows: dict[str, dict[str, int]] = {}
    handler, number = get_dataset_handler(queries), 0
    for batch in handler.create_dataloader(queries, batch_size=64):
        for content, target in _contents(*handler.process_batch(batch, "cpu")):
            first = rows.setdefault(content, {}).setdefault(target, number)
            if not np.allclose(scores[first], scores[number], atol=1e-6 * np.abs(scores).max()):
                raise ValueError(f"queries {first} and {number} are the same, their scores are not")
            number += 1
    return rows


def _contents(inputs: Any, targets: Any) -> Iterator[tuple[str, str]]:
    """Give a fingerprint of each row's inputs, and its target as text."""
    parts = inputs if isinstance(inputs, Mapping) else {"": inputs}
    host = {name: part.detach().cpu().numpy() for name, part in parts.items()}
    labels = torch.as_tensor(targets).tolist()
    counts = {len(part) for part in host.values()} | {len(labels)}
    if len(counts) > 1:
        raise ValueError(f"inputs and targets must be as many; got {sorted(counts)}")
    for i, label in enumerate(labels):
        yield digest({name: part[i] for name, part in host.items()}), str(label)


def _check(found: int, rows: int, name: str) -> None:
    if found != rows:
        raise ValueError(f"the scores have {rows} {name} rows, the dataset {found}")
