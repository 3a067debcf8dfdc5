"""Words in place of a tokenizer's pieces, and runs of rows of them."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.schema import inference_data
from ppl_bif.text import IGNORED


class Encoding(NamedTuple):
    ids: list
    offsets: list


class Words:
    """A tokenizer of these words, as ``tokenizers.Tokenizer`` answers."""

    def __init__(self, known):
        self.known = known

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def encode(self, text):
        at, offsets, words = 0, [], text.split(" ")
        for word in words:
            offsets.append((at, at + len(word)))
            at += len(word) + 1
        return Encoding([self.known.index(word) for word in words], offsets)


def run_of(sides, values_of, inverse_temperature=1.0):
    """Make a run with these rows; ``values_of(rows)`` gives ``(chain, draw, row, token)``."""
    groups, constant = {}, {}
    for side, rows in sides.items():
        values = np.where(rows.targets == IGNORED, 0.0, values_of(rows))
        dims = ("chain", "draw", side, f"{side}_token")
        groups[f"{side}_obs"] = xr.DataArray(values, dims=dims, coords={side: rows.ids})
        constant |= rows.constant(side) | {f"{side}_target": ((side, dims[3]), rows.targets)}
    known = {"log_likelihood": xr.Dataset(groups), "constant_data": xr.Dataset(constant)}
    return inference_data(known, {"inverse_temperature": inverse_temperature})
