"""scikit-learn's 8x8 digits: the last 360 images to explain, those before them to attribute to."""

from typing import NamedTuple

import numpy as np

__all__ = ["NUM_QUERY", "Digits", "load"]

NUM_QUERY = 360


class Digits(NamedTuple):
    """Images scaled to 0 ... 1, their labels and ids.

    Attributes
    ----------
    train_x, query_x
        Pixels, ``(row, 64)``, float32.
    train_y, query_y
        Digits, ``(row,)``, integers 0 ... 9.
    train_ids, query_ids
        Position in scikit-learn's table, ``(row,)``.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    train_ids: np.ndarray
    query_x: np.ndarray
    query_y: np.ndarray
    query_ids: np.ndarray

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels to attribute to."""
        return self.train_x, self.train_y

    @property
    def query(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels to explain."""
        return self.query_x, self.query_y

    def pictures(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Images as ``constant_data`` for ``sample``, so that plots and reports show them."""
        dims = ("y", "x")
        return {
            "train_image": (("train", *dims), self.train_x.reshape(-1, 8, 8)),
            "query_image": (("query", *dims), self.query_x.reshape(-1, 8, 8)),
        }


def load() -> Digits:
    """Load the 1,797 digits; the first 1,437 are for training.

    Examples
    --------
    >>> load().train_x.shape
    (1437, 64)
    """
    from sklearn.datasets import load_digits

    table = load_digits()
    x, y = (table.data / 16).astype(np.float32), table.target.astype(np.int64)
    ids = np.arange(len(y))
    cut = len(y) - NUM_QUERY
    return Digits(x[:cut], y[:cut], ids[:cut], x[cut:], y[cut:], ids[cut:])
