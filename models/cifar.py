"""CIFAR-10's 32x32 colour pictures, from the binary files as they are published or from archives.

Looked for, in this order: the binary version (``cifar-10-batches-bin``), torchvision's copy
(``cifar-10-batches-py``, read by torchvision), and ``train.zip`` with ``test.zip``, each of which
holds ``train/airplane/0000.jpg`` or the like.
``python -m ppl_bif_models.cifar FOLDER TARGET`` makes small archives from whole ones. A network is
trained by :mod:`ppl_bif_models.experiment`.
"""

import argparse
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["CLASSES", "Cifar", "excerpt", "load", "scaled"]

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
BINARY, PICKLED = "cifar-10-batches-bin", "cifar-10-batches-py"
FOLDERS = (Path(), Path("data"))
PIXELS, CHANNELS = 32, 3
# Of the training pictures.
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
DEVIATION = np.array([0.2470, 0.2435, 0.2616], np.float32)


class Cifar(NamedTuple):
    """Pictures as they are published and their classes.

    Attributes
    ----------
    train_x, test_x
        Pixels, ``(row, 3, 32, 32)``, integers 0 ... 255.
    train_y, test_y
        Positions in ``CLASSES``, ``(row,)``, integers 0 ... 9.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def load(folder: str | Path | None = None) -> Cifar:
    """Load the 50,000 training and 10,000 test pictures.

    Parameters
    ----------
    folder
        Where the files are. By default the working directory, and ``data`` in it.
    """
    looked = FOLDERS if folder is None else (Path(folder),)
    for path in looked:
        if (path / BINARY).is_dir():
            return _from_binary(path / BINARY)
        if (path / PICKLED).is_dir():
            return _from_torchvision(path)
        if (path / "train.zip").exists():
            return Cifar(*_from_archive(path / "train.zip"), *_from_archive(path / "test.zip"))
    raise FileNotFoundError(
        f"no {BINARY}, {PICKLED} or train.zip in {', '.join(map(str, looked))}: get the binary "
        "version from www.cs.toronto.edu/~kriz/cifar.html, or use "
        "torchvision.datasets.CIFAR10('data', download=True), and pass folder="
    )


def scaled(x: np.ndarray) -> np.ndarray:
    """Turn pixels ``(row, 3, 32, 32)`` of 0 ... 255 into float32 of mean 0 and deviation 1."""
    shape = (CHANNELS, 1, 1)
    return (x / np.float32(255) - MEAN.reshape(shape)) / DEVIATION.reshape(shape)


def excerpt(
    folder: str | Path, target: str | Path, *, train: int = 60, test: int = 20, seed: int = 0
) -> None:
    """Copy some pictures of each class into archives of their own, as they are.

    Parameters
    ----------
    folder
        Where ``train.zip`` and ``test.zip`` are.
    target
        Where the new ones go.
    train, test
        Pictures of each class.
    seed
        Of the choice.
    """
    Path(target).mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("test", test)):
        rng, name = np.random.default_rng(seed), f"{part}.zip"
        with (
            zipfile.ZipFile(Path(folder) / name) as whole,
            zipfile.ZipFile(Path(target) / name, "w", zipfile.ZIP_DEFLATED) as some,
        ):
            for kind in CLASSES:
                names = [n for n in _pictures(whole) if n.split("/")[-2] == kind]
                for i in np.sort(rng.permutation(len(names))[:count]):
                    entry = zipfile.ZipInfo(names[i])
                    some.writestr(entry, whole.read(names[i]), zipfile.ZIP_DEFLATED)


def _pictures(archive: zipfile.ZipFile) -> list[str]:
    return sorted(name for name in archive.namelist() if name.endswith((".jpg", ".png")))


def _from_binary(folder: Path) -> Cifar:
    """Read rows of a byte for the class and 3,072 for the picture."""

    def read(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        raw = np.concatenate([np.fromfile(folder / name, np.uint8) for name in names])
        width = 1 + CHANNELS * PIXELS**2
        if raw.size % width:
            raise ValueError(f"{folder} is cut short: rows take {width} bytes; got {raw.size}")
        rows = raw.reshape(-1, width)
        return rows[:, 1:].reshape(-1, CHANNELS, PIXELS, PIXELS), rows[:, 0].astype(np.int64)

    train = read([f"data_batch_{i}.bin" for i in range(1, 6)])
    return Cifar(*train, *read(["test_batch.bin"]))


def _from_torchvision(folder: Path) -> Cifar:
    from torchvision.datasets import CIFAR10

    parts = (CIFAR10(str(folder), train=train) for train in (True, False))
    arrays = [(part.data.transpose(0, 3, 1, 2), np.array(part.targets)) for part in parts]
    return Cifar(*arrays[0], *arrays[1])


def _from_archive(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read pictures in the order of their names; the folder of each is its class."""
    from PIL import Image

    with zipfile.ZipFile(path) as archive:
        names = _pictures(archive)
        x = np.empty((len(names), PIXELS, PIXELS, CHANNELS), np.uint8)
        for row, name in zip(x, names, strict=True):
            row[:] = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
    y = np.array([CLASSES.index(name.split("/")[-2]) for name in names])
    return x.transpose(0, 3, 1, 2), y


def main() -> None:
    """Make small archives from whole ones."""
    parser = argparse.ArgumentParser(
        prog="python -m ppl_bif_models.cifar", description="Make small archives from whole ones."
    )
    parser.add_argument("folder", help="where train.zip and test.zip are")
    parser.add_argument("target", help="where the new ones go")
    parser.add_argument("--train", type=int, default=60, help="of each class (%(default)s)")
    parser.add_argument("--test", type=int, default=20, help="of each class (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice (%(default)s)")
    excerpt(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
