"""Which verses are sampled, which words are looked for, and how well a score finds them.

A word and its translation never stand in one language. A score knows the language if the training
tokens of the translation have large scores on query tokens of the word, among all training tokens.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from ppl_bif.text import Text
from ppl_bif_models import verses

__all__ = [
    "PAIRS",
    "Direction",
    "Found",
    "by_type",
    "chosen",
    "directions",
    "like",
    "number",
    "words",
]

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
    among_pairs
        Its rank among the translations of all pairs.
    tokens
        Of the query, and of the translation in training.
    """

    query: str
    train: str
    percentile: float
    rank: int
    types: int
    among_pairs: int
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
    held = np.stack(
        [(text.targets[short] == number(word)).sum(1) for pair in PAIRS for word in pair]
    )
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


@cache
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
    marks = {
        verses.tokenizer().token_to_id(mark): at for at, mark in enumerate(verses.MARKS.values())
    }
    language = np.full(text.inputs.shape, -1)
    for mark, at in marks.items():
        language[text.inputs == mark] = at
    for place in range(1, language.shape[1]):
        missing = language[:, place] < 0
        language[missing, place] = language[missing, place - 1]
    return Words(token, language[row, position], row, position)


class Direction(NamedTuple):
    """Scores of one word's query tokens, made ready to be judged, also on resampled verses.

    Attributes
    ----------
    query, train, language
        The word, its translation, and the language of that: 0 is English.
    wanted
        Id of the translation, or of another word that is looked for in its place.
    rows, columns
        The query tokens of the word, and the training tokens of its translation.
    place
        ``(query, train)`` percentiles of those pairs among all training tokens.
    score
        ``(query, train)``, against all training tokens of the other language.
    mine, types
        These tokens, and their ids.
    """

    query: str
    train: str
    language: int
    wanted: int
    rows: np.ndarray
    columns: np.ndarray
    place: np.ndarray
    score: np.ndarray
    mine: np.ndarray
    types: np.ndarray

    def judged(self, train: np.ndarray, query: np.ndarray) -> Found:
        """Judge it with so much weight on each training and each query token."""
        asked, seen = query[self.rows], train[self.columns]
        percentile = asked @ self.place @ seen / max(asked.sum() * seen.sum(), 1e-9)
        weight = train[self.mine]
        size = np.bincount(self.types, weight)
        mean = np.bincount(self.types, weight * (asked @ self.score)) / np.maximum(size, 1e-9)
        ranked = (size >= COMMON) | (np.arange(len(size)) == self.wanted)
        rank = int((mean[ranked] > mean[self.wanted]).sum()) + 1
        rivals = [number(pair[self.language]) for pair in PAIRS]
        among = int((mean[rivals] > mean[self.wanted]).sum()) + 1
        tokens = len(self.rows), len(self.columns)
        return Found(
            self.query, self.train, float(percentile), rank, int(ranked.sum()), among, tokens
        )


def directions(
    scores: np.ndarray,
    train: Words,
    query: Words,
    sought: Callable[[str, int], int] = lambda word, language: number(word),
) -> Iterator[Direction]:
    """Prepare each direction of each pair, of scores ``(query, train)``.

    ``sought`` says which id is looked for, given a translation and its language.
    """
    for english, french in PAIRS:
        for language, (asked, wanted) in enumerate(((english, french), (french, english))):
            rows = np.flatnonzero((query.token == number(asked)) & (query.language == language))
            other = train.language == 1 - language
            target = sought(wanted, 1 - language)
            columns = np.flatnonzero((train.token == target) & other)
            mine, some = np.flatnonzero(other), scores[rows]
            place = some.argsort(axis=1).argsort(axis=1)[:, columns] / (some.shape[1] - 1)
            yield Direction(
                *(asked, wanted, 1 - language, target, rows, columns, place),
                *(some[:, mine], mine, train.token[mine]),
            )


def like(train: Words, loss: np.ndarray) -> Callable[[str, int], int]:
    """Find, for a word, another of its language that is as frequent, as early, and as hard.

    Parameters
    ----------
    train
        The training tokens.
    loss
        Of each of them, in nats.

    Returns
    -------
    callable
        From a word and its language to the id whose log frequency, mean position and mean loss are
        nearest, each over its deviation; none of the pairs' words, and each but once.
    """
    known = {number(word) for pair in PAIRS for word in pair}
    given: set[int] = set()

    def other(word: str, language: int) -> int:
        mine = train.language == language
        size = np.bincount(train.token[mine], minlength=train.token.max() + 1)
        place, hard = (
            np.bincount(train.token[mine], values[mine], len(size)) / np.maximum(size, 1)
            for values in (train.position, loss)
        )
        common = np.flatnonzero(size >= COMMON)
        marks = np.stack([np.log(np.maximum(size, 1)), place, hard])
        apart = (marks - marks[:, [number(word)]]) / marks[:, common].std(axis=1, keepdims=True)
        free = [one for one in common if one not in known | given]
        best = min(free, key=lambda one: float(np.square(apart[:, one]).sum()))
        given.add(int(best))
        return int(best)

    return other


def by_type(scores: np.ndarray, train: Words, query: Words) -> np.ndarray:
    """Mean scores of word types on the words looked for, ``(word, type)``."""
    size = np.bincount(train.token)
    common = np.flatnonzero(size >= COMMON)
    found = []
    for word in {number(word) for pair in PAIRS for word in pair}:
        mean = scores[query.token == word].mean(axis=0)
        found.append(np.bincount(train.token, mean)[common] / size[common])
    return np.array(found)
