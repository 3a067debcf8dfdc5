"""One command from pictures to what taught what: train a network, sample, score, show.

``python -m ppl_bif_models.experiment fashion`` takes a small CNN on Fashion-MNIST,
``python -m ppl_bif_models.experiment cifar --framework flax`` a ResNet-9 on CIFAR-10, in PyTorch,
Flax or Equinox. What is left open of the sampling, warm-up finds.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from rich.console import Console

from ppl_bif.errors import BIFError
from ppl_bif.evaluation import retrieval
from ppl_bif_models import cifar, fashion
from ppl_bif_models.digits_recipe import EPOCHS as CNN_EPOCHS
from ppl_bif_models.resnet9_recipe import EPOCHS as RESNET9_EPOCHS
from ppl_bif_models.showing import Rows, announce, show

__all__ = ["main"]

PROGRAM = "python -m ppl_bif_models.experiment"
# Pictures that are classified at once.
BATCH = 256
PROPONENTS = 10


class Pictures(NamedTuple):
    """What differs from one data set to another.

    Attributes
    ----------
    load
        Gives all pictures that a folder holds.
    classes
        Their names.
    scaled, shown
        From bytes as they are published to what a network takes, and to ``(row, y, x[, colour])``.
    """

    load: Callable[[str | None], Any]
    classes: tuple[str, ...]
    scaled: Callable[[np.ndarray], np.ndarray]
    shown: Callable[[np.ndarray], np.ndarray]


PICTURES = {
    "fashion": Pictures(
        fashion.load,
        fashion.CLASSES,
        lambda x: x / np.float32(255),
        lambda x: x.reshape(-1, 28, 28),
    ),
    "cifar": Pictures(cifar.load, cifar.CLASSES, cifar.scaled, lambda x: x.transpose(0, 2, 3, 1)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run an experiment; what is wrong or missing is said in one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        store = _run(_parser().parse_args(arguments))
    except (BIFError, FileNotFoundError, ImportError, ValueError) as error:
        sys.exit(f"error: {error}")
    announce(Console(), [store], f"{PROGRAM} {shlex.join(arguments)} --draws 2000 --out more")


def _run(options: argparse.Namespace) -> Path:
    """Train, sample and show; return the store."""
    console, rows = Console(), _rows(PICTURES[options.name], options)
    console.rule(f"{options.network} in {options.framework}")
    model, predict = _TRAINED[options.network, options.framework](options, *rows.train)
    guesses = _guesses(predict, rows.query[0])
    console.print(
        f"{model.num_weights:,} weights, {(guesses == rows.query[1]).mean():.1%} of "
        f"{len(guesses):,} test pictures are right"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    store: Path = options.out / f"{options.name}-{options.network}-{options.framework}.zarr"
    settings = {"draws": options.draws, "chain_method": options.chain_method}
    scores = show(console, model, rows, guesses, store, kind="class", **settings)
    _print_retrieval(console, scores, rows)
    return store


def _print_retrieval(console: Console, scores: xr.Dataset, rows: Rows) -> None:
    count = min(PROPONENTS, len(rows.train_ids))
    found = retrieval(scores, rows.train[1], rows.query[1], k=count)
    share, low, high, chance = (f"{found[v]:.0%}" for v in ("mean", "low", "high", "chance"))
    console.print(
        f"{share} ({low} ... {high}) of the {count} strongest proponents of a test picture are of "
        f"its class; by chance {chance} would be",
        soft_wrap=True,
    )


def _rows(pictures: Pictures, options: argparse.Namespace) -> Rows:
    whole = pictures.load(options.folder)
    train_ids, train_x, train_y = _some(whole.train_x, whole.train_y, options.rows, "--rows")
    query_ids, query_x, query_y = _some(whole.test_x, whole.test_y, options.queries, "--queries")
    return Rows(
        (pictures.scaled(train_x), train_y),
        (pictures.scaled(query_x), query_y),
        train_ids,
        query_ids,
        {
            "train_image": _shown("train", pictures.shown(train_x)),
            "query_image": _shown("query", pictures.shown(query_x)),
            "class_name": ("class", np.array(pictures.classes)),
        },
    )


def _some(
    x: np.ndarray, y: np.ndarray, count: int, option: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose pictures at random, always the same; their ids are their places among all."""
    if not 0 < count <= len(y):
        raise ValueError(f"{option} must lie between 1 and the {len(y):,} there are; got {count:,}")
    ids = np.random.default_rng(0).permutation(len(y))[:count]
    return ids, x[ids], y[ids]


def _shown(part: str, images: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    return (part, "y", "x", "colour")[: images.ndim], images


def _guesses(predict: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    parts = (x[i : i + BATCH] for i in range(0, len(x), BATCH))
    return np.concatenate([predict(part).argmax(axis=1) for part in parts])


def _cnn_torch(options: argparse.Namespace, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    from ppl_bif_models import fashion_torch

    network = fashion_torch.train(fashion_torch.cnn(), x, y, epochs=options.epochs)
    return _localized_torch(network, "cpu")


def _resnet9_torch(options: argparse.Namespace, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    from ppl_bif_models import resnet9_torch

    network = resnet9_torch.train(
        resnet9_torch.resnet9(width=options.width),
        x,
        y,
        epochs=options.epochs,
        device=options.device,
    )
    return _localized_torch(network, options.device)


def _localized_torch(network: Any, device: str) -> tuple[Any, Any]:
    """Return the localized network, and what gives its logits."""
    import torch

    from ppl_bif.pyro import localize

    network = network.to(device)

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.as_tensor(x, device=device)).cpu().numpy()

    return localize(network, likelihood="categorical"), predict


def _resnet9_flax(options: argparse.Namespace, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    from flax import nnx

    from ppl_bif.numpyro import localize
    from ppl_bif_models import resnet9_flax

    network = resnet9_flax.ResNet9(width=options.width)
    network = resnet9_flax.train(network, x, y, epochs=options.epochs)
    logits = nnx.jit(lambda network, x: network(x))
    model = localize(network, likelihood="categorical")
    return model, lambda x: np.asarray(logits(network, x))


def _resnet9_equinox(options: argparse.Namespace, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    import equinox as eqx

    from ppl_bif.numpyro import localize
    from ppl_bif_models import resnet9_equinox

    network = resnet9_equinox.ResNet9(width=options.width)
    network = resnet9_equinox.train(network, x, y, epochs=options.epochs)
    logits = eqx.filter_jit(eqx.filter_vmap(network))
    model = localize(network, likelihood="categorical")
    return model, lambda x: np.asarray(logits(x))


_TRAINED: dict[tuple[str, str], Callable[..., tuple[Any, Any]]] = {
    ("cnn", "torch"): _cnn_torch,
    ("resnet9", "torch"): _resnet9_torch,
    ("resnet9", "flax"): _resnet9_flax,
    ("resnet9", "equinox"): _resnet9_equinox,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train a network on pictures, sample around it, and show which taught what: "
        "a store, a picture and an HTML report.",
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    clothes = names.add_parser("fashion", help="a small CNN on Fashion-MNIST, in PyTorch")
    clothes.set_defaults(network="cnn", framework="torch")
    _add_common(clothes, rows=2000, queries=400, epochs=CNN_EPOCHS, draws=250)
    colours = names.add_parser("cifar", help="ResNet-9 on CIFAR-10, in PyTorch, Flax or Equinox")
    colours.set_defaults(network="resnet9")
    _add_common(colours, rows=500, queries=100, epochs=RESNET9_EPOCHS, draws=50)
    frameworks = [framework for network, framework in _TRAINED if network == "resnet9"]
    colours.add_argument("--framework", choices=frameworks, default="torch", help="(%(default)s)")
    colours.add_argument(
        "--width",
        type=int,
        default=8,
        help="channels of the first layer; Page's has 64 (%(default)s)",
    )
    colours.add_argument(
        "--device", default="cpu", help="of PyTorch, such as cuda; JAX takes what it finds"
    )
    return parser


def _add_common(
    parser: argparse.ArgumentParser, *, rows: int, queries: int, epochs: int, draws: int
) -> None:
    add = parser.add_argument
    add("--folder", help="where the data are; otherwise the usual places are looked at")
    add(
        "--rows", type=int, default=rows, help="pictures to train on and attribute to (%(default)s)"
    )
    add("--queries", type=int, default=queries, help="test pictures to explain (%(default)s)")
    add(
        "--epochs", type=int, default=epochs, help="passes over the training pictures (%(default)s)"
    )
    add("--draws", type=int, default=draws, help="draws of each of 4 chains (%(default)s)")
    add(
        "--chain-method",
        choices=("sequential", "vectorized", "auto"),
        default="sequential",
        help="chains one after another, which convolves faster on a CPU, or at once (%(default)s)",
    )
    add(
        "--out",
        type=Path,
        default=Path("ppl-bif-experiment"),
        help="folder to write to (%(default)s)",
    )


if __name__ == "__main__":
    main()
