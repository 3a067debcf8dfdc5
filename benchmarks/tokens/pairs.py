"""Which verses are sampled, which words are looked for, and how well a score finds them.

A word and its translation never stand in one language. A score knows the language if the training
tokens of the translation have large scores on query tokens of the word, among all training tokens.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ppl_bif.text import Text
from ppl_bif_models import verses

__all__ = ["PAIRS", "Found", "chosen", "found", "words"]

PAIRS = (
    *(("she", "elle"), ("he", "il"), ("God", "Dieu"), ("king", "roi")),
    *(("people", "peuple"), ("son", "fils"), ("house", "maison"), ("day", "jour")),
)
# Types of the other language that occur so often are ranked.
COMMON = 5
LONGEST = 84


class Words(NamedTuple):
    """The tokens that are scored: what each is, in which language, document, and place."""

    token: np.ndarray
    language: np.ndarray
    row: np.ndarray
    position: np.ndarray


class Found(NamedTuple):
    """How well translations are found in one direction of one pair.

    Attributes
    ----------
    query, train
        The word, and its translation.
    percentile
        Mean, over query tokens, of the translation's mean percentile among all training tokens.
    rank, types
        Of the translation's mean score among word types of its language; how many there are.
    tokens
        Of the query, and of the translation in training.
    """

    query: str
    train: str
    percentile: float
    rank: int
    types: int
    tokens: tuple[int, int]


def chosen(count: int, *, unseen: bool, seed: int = 0) -> Text:
    """Choose short verses that hold many of the words, as rows of tokens.

    Parameters
    ----------
    count
        Verses.
    unseen
        Of those kept from training, or else of others.
    """
    some = [v for v in verses.excerpt() if (verses.part(v) == verses.KEPT) == unseen]
    text = verses.encoded(some)
    tokens = (text.targets >= 0).sum(axis=1)
    whole = np.array([not str(name).endswith(("#0", "#1")) for name in text.ids])
    short = np.flatnonzero((tokens <= LONGEST) & whole)
    held = np.stack([(text.targets[short] == number(word)).sum(1) for pair in PAIRS for word in pair])
    rng, taken = np.random.default_rng(seed), []
    order = rng.permutation(len(short))
    # In turn, the next verse that holds the word that was met least so far.
    met = np.zeros(len(held))
    left = list(order)
    while len(taken) < count:
        word = int(met.argmin())
        pick = next((i for i in left if held[word, i]), left[0])
        left.remove(pick)
        taken.append(pick)
        met += held[:, pick]
    return text.where(short[np.sort(taken)])


def number(word: str) -> int:
    """Return the id of a word with a blank before it."""
    ids = verses.tokenizer().encode(f" {word}").ids
    if len(ids) != 1:
        raise ValueError(f"{word!r} is more than one token")
    return int(ids[0])


def words(text: Text) -> Words:
    """Lay the tokens of rows one after another, as ``influence(by="token")`` does."""
    row, position = np.nonzero(text.targets >= 0)
    token = text.targets[row, position]
    marks = {verses.tokenizer().token_to_id(mark): at for at, mark in enumerate(verses.MARKS.values())}
    language = np.full(text.inputs.shape, -1)
    for number_, at in marks.items():
        language[text.inputs == number_] = at
    for place in range(1, language.shape[1]):
        missing = language[:, place] < 0
        language[missing, place] = language[missing, place - 1]
    return Words(token, language[row, position], row, position)


def found(scores: np.ndarray, train: Words, query: Words, weights: Any = None) -> Iterator[Found]:
    """Say for each direction of each pair how well a score ``(query, train)`` finds translations."""
    count = np.ones(len(train.row)) if weights is None else weights[train.row]
    for at, (english, french) in enumerate(PAIRS):
        for language, (asked, wanted) in enumerate(((english, french), (french, english))):
            rows = np.flatnonzero((query.token == number(asked)) & (query.language == language))
            columns = (train.token == number(wanted)) & (train.language == 1 - language)
            if not len(rows) or not columns.any():
                continue
            some = scores[rows]
            order = some.argsort(axis=1).argsort(axis=1) / (some.shape[1] - 1)
            percentile = float((order[:, columns] * count[columns]).sum() / count[columns].sum())
            yield Found(
                asked,
                wanted,
                percentile / len(rows),
                *_rank(some.mean(axis=0), train, number(wanted), 1 - language, count),
                (len(rows), int(columns.sum())),
            )


def _rank(
    score: np.ndarray, train: Words, wanted: int, language: int, count: np.ndarray
) -> tuple[int, int]:
    """Rank a word type among those of its language, by mean scores."""
    mine = train.language == language
    size = np.bincount(train.token[mine], count[mine], minlength=verses.SHAPE.vocabulary)
    total = np.bincount(
        train.token[mine], (score * count)[mine], minlength=verses.SHAPE.vocabulary
    )
    types = np.flatnonzero((size >= COMMON) | (np.arange(len(size)) == wanted))
    means = total[types] / np.maximum(size[types], 1e-9)
    return int((means > means[types == wanted][0]).sum()) + 1, len(types)
