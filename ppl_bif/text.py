"""Text as rows of tokens: ids, what is predicted where, and where it stands in the document."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["IGNORED", "Text", "encode"]

IGNORED = -100
NOWHERE = -1


class Text(NamedTuple):
    """Documents as rows of tokens, for :func:`ppl_bif.sample` with ``likelihood="tokens"``.

    Attributes
    ----------
    inputs
        Ids that are read, ``(row, token)``.
    targets
        The id that comes next at each place, ``(row, token)``; -100 where nothing is predicted.
    ids
        Of the rows: the document's, or ``"document#1"`` and on where it takes several rows.
    about
        What is known of the rows, by name and without the side they are on: ``document``, ``text``
        (what the row holds), ``text_start`` (where that begins in the document), ``token_start``
        and ``token_stop`` (of each target, in characters of the document; -1 where there is none).
    """

    inputs: np.ndarray
    targets: np.ndarray
    ids: np.ndarray
    about: dict[str, np.ndarray]

    @property
    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, as a network takes them whose first argument is the ids."""
        return self.inputs, self.targets

    def hugging_face(self) -> dict[str, np.ndarray]:
        """Inputs and targets by the names that causal language models of Hugging Face take."""
        return {"input_ids": self.inputs, "labels": self.targets}

    def constant(self, side: str) -> dict[str, Any]:
        """Give what is known of the rows, for ``sample(..., constant_data=...)``.

        Parameters
        ----------
        side
            ``"train"`` or ``"query"``.
        """
        dims = (side, f"{side}_token")
        return {f"{side}_{name}": (dims[: v.ndim], v) for name, v in self.about.items()}

    def where(self, chosen: Any) -> "Text":
        """Choose rows, by a mask or by numbers; they end with the last token that counts."""
        counted = (self.targets[chosen] != IGNORED).any(axis=0)
        end = int(counted.nonzero()[0].max(initial=-1)) + 1
        about = {n: v[chosen][:, :end] if v.ndim > 1 else v[chosen] for n, v in self.about.items()}
        inputs, targets = self.inputs[chosen][:, :end], self.targets[chosen][:, :end]
        return Text(inputs, targets, self.ids[chosen], about)


def encode(
    tokenizer: Any,
    texts: Sequence[str] | Mapping[Any, str],
    *,
    length: int,
    start: int | None = None,
    overlap: int = 0,
    counted: Mapping[Any, Sequence[tuple[int, int]]] | None = None,
) -> Text:
    """Turn documents into rows of tokens, and keep where each token stands.

    A document longer than ``length`` becomes several rows. The last ``overlap`` tokens of one are
    read again at the beginning of the next, as context: each token is predicted once.

    Parameters
    ----------
    tokenizer
        A ``tokenizers.Tokenizer``, or a fast tokenizer of transformers, which adds its special
        tokens as it does.
    texts
        Documents, by their ids if it is a mapping, and else numbered.
    length
        Tokens of a row.
    start
        Id of a token put before each document, so that its first token is predicted too.
    overlap
        Tokens of context that a row takes over from the one before.
    counted
        Character ranges ``(start, stop)`` by document id. Of these documents only tokens that lie
        in one, at least in part, count: the response, not the prompt.

    Returns
    -------
    Text
        Rows as long as the longest, at most ``length``; filled up with id 0, which nothing that
        counts ever sees under causal attention.

    Raises
    ------
    ValueError
        If ``overlap`` is not below ``length``, a document holds fewer than two tokens, or a
        document in ``counted`` is unknown or no token of it counts.

    Examples
    --------
    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> known = Tokenizer(models.WordLevel({"she": 0, "went": 1, "home": 2}, unk_token="she"))
    >>> known.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> text = encode(known, {"a": "she went home"}, length=8)
    >>> text.inputs.tolist(), text.targets.tolist()
    ([[0, 1]], [[1, 2]])
    >>> text.about["token_start"].tolist()
    [[4, 9]]
    """
    if not 0 <= overlap < length:
        raise ValueError(f"overlap must lie between 0 and length - 1 = {length - 1}; got {overlap}")
    named = texts if isinstance(texts, Mapping) else dict(enumerate(texts))
    if unknown := [name for name in counted or {} if name not in named]:
        raise ValueError(f"counted names documents that are not there: {unknown[:5]}")
    rows = [
        row
        for name, text in named.items()
        for row in _rows(tokenizer, name, text, length, start, overlap, (counted or {}).get(name))
    ]
    if not rows:
        raise ValueError("there are no documents")
    width = max(len(row.targets) for row in rows)
    parts = {"token_start": NOWHERE, "token_stop": NOWHERE, "inputs": 0, "targets": IGNORED}
    filled = {
        name: np.stack([_filled(getattr(row, name), width, value) for row in rows])
        for name, value in parts.items()
    }
    about = {
        "document": np.array([row.document for row in rows]),
        "text": np.array([row.text for row in rows]),
        "text_start": np.array([row.text_start for row in rows]),
        **{name: filled[name].astype(np.int32) for name in ("token_start", "token_stop")},
    }
    return Text(filled["inputs"], filled["targets"], np.array([row.id for row in rows]), about)


class _Row(NamedTuple):
    id: Any
    document: Any
    text: str
    text_start: int
    inputs: np.ndarray
    targets: np.ndarray
    token_start: np.ndarray
    token_stop: np.ndarray


def _rows(
    tokenizer: Any,
    name: Any,
    text: str,
    length: int,
    start: int | None,
    overlap: int,
    counted: Sequence[tuple[int, int]] | None,
) -> Iterator[_Row]:
    """Cut one document."""
    ids, offsets = _tokens(tokenizer, text)
    if start is not None:
        ids, offsets = np.append(start, ids), np.vstack([[(0, 0)], offsets])
    if len(ids) < 2:
        raise ValueError(f"document {name!r} holds fewer than two tokens: leave it out")
    predicted = _predicted(offsets, counted)
    predicted[0] = False
    if not predicted.any():
        raise ValueError(f"no token of document {name!r} counts: see its ranges {counted}")
    for number, first in enumerate(range(0, max(1, len(ids) - 1 - overlap), length - overlap)):
        stop = min(first + length, len(ids) - 1)
        places = np.arange(first + 1, stop + 1)
        counts = predicted[places] & ((number == 0) | (np.arange(len(places)) >= overlap))
        if not counts.any():
            continue
        begin = int(offsets[first, 0])
        end = int(offsets[places, 1].max(initial=begin))
        yield _Row(
            f"{name}#{number}" if len(ids) - 1 > length else name,
            name,
            text[begin:end],
            begin,
            ids[first:stop],
            np.where(counts, ids[places], IGNORED),
            np.where(counts, offsets[places, 0], NOWHERE),
            np.where(counts, offsets[places, 1], NOWHERE),
        )


def _tokens(tokenizer: Any, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ids, and where each token begins and ends."""
    if hasattr(tokenizer, "encode_batch"):
        found = tokenizer.encode(text)
        ids, offsets = found.ids, found.offsets
    else:
        found = tokenizer(text, return_offsets_mapping=True, truncation=False)
        ids, offsets = found["input_ids"], found["offset_mapping"]
    return np.array(ids, np.int64), np.array(offsets, np.int64).reshape(-1, 2)


def _predicted(offsets: np.ndarray, counted: Sequence[tuple[int, int]] | None) -> np.ndarray:
    if counted is None:
        return np.ones(len(offsets), bool)
    inside = [(offsets[:, 1] > start) & (offsets[:, 0] < stop) for start, stop in counted]
    return np.any(inside, axis=0) if inside else np.zeros(len(offsets), bool)


def _filled(values: np.ndarray, width: int, value: int) -> np.ndarray:
    return np.pad(values, (0, width - len(values)), constant_values=value)
