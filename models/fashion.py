"""Fashion-MNIST's 28x28 pictures of clothes, read from the four files as they are published."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["CLASSES", "Fashion", "load"]

CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
FILES = "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"
# Where torchvision and Debian's package keep them.
FOLDERS = (
    Path("FashionMNIST/raw"),
    Path("data/FashionMNIST/raw"),
    Path("/usr/share/datasets/fashion-mnist"),
)


class Fashion(NamedTuple):
    """Pictures as they are published and their classes.

    Attributes
    ----------
    train_x, test_x
        Pixels, ``(row, 784)``, integers 0 ... 255.
    train_y, test_y
        Positions in ``CLASSES``, ``(row,)``, integers 0 ... 9.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def load(folder: str | Path | None = None) -> Fashion:
    """Load the 60,000 training and 10,000 test pictures.

    Parameters
    ----------
    folder
        Where the files are, or the ``root`` of torchvision's ``FashionMNIST``. By default the
        working directory, ``data`` in it, and where Debian's package puts them.
    """
    found = _find(folder)
    arrays = (
        _read(found / f"{part}-{kind}-ubyte.gz")
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    )
    return Fashion(*arrays)


def _find(folder: str | Path | None) -> Path:
    given = () if folder is None else (Path(folder), Path(folder) / "FashionMNIST/raw")
    looked = given or FOLDERS
    for path in looked:
        if (path / "train-images-idx3-ubyte.gz").exists():
            return path
    raise FileNotFoundError(
        f"no {FILES} in {', '.join(map(str, looked))}: get them by "
        "torchvision.datasets.FashionMNIST('data', download=True), by 'apt-get install "
        "dataset-fashion-mnist', or from github.com/zalandoresearch/fashion-mnist, and pass folder="
    )


def _read(path: Path) -> np.ndarray:
    """Rows of an idx file: two zeros, the type (8: bytes), the number of dims, the dims, data."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no idx file of bytes: it starts with {raw[:4].hex()}")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    return values.reshape(shape[0], -1) if raw[3] > 1 else values.astype(np.int64)
