"""The demo: digits networks in each backend, their local posteriors, and which images taught what.

One run for each network and backend: a store, a picture, an HTML report; the top influences of
some test digits, with their errors, are printed.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ppl_bif_models import digits
from ppl_bif_models.showing import Rows, announce, show

__all__ = ["run"]

# The CNN costs more per draw, and a CPU convolves one chain after another faster than all at once.
DRAWS = {"mlp": 250, "cnn": 75}
CHAIN_METHOD = {"mlp": "auto", "cnn": "sequential"}
NEEDS = {"pyro": ("torch", "pyro"), "numpyro": ("jax", "numpyro")}


def run(
    *, backend: str = "both", out: str | Path = "ppl-bif-demo", draws: int | None = None
) -> None:
    """Train, sample, diagnose, and show what taught the networks their digits.

    Nothing is set by hand: warm-up chooses, and what it chose is printed with its reasons.

    Parameters
    ----------
    backend
        ``"pyro"``, ``"numpyro"`` or ``"both"``, of which those installed are run.
    out
        Folder for stores, pictures and reports. Runs already there are shown again.
    draws
        Draws of each of the 4 chains; by default 250 for the MLP and 75 for the CNN.
    """
    console, folder, data = Console(), Path(out), digits.load()
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name in _backends(backend):
        for network in ("mlp", "cnn"):
            console.rule(f"{network.upper()} in {name}")
            made.append(_one(name, network, data, folder, draws or DRAWS[network], console))
    announce(console, made, "ppl-bif demo --draws 2000 --out more")


def _backends(backend: str) -> list[str]:
    wanted = list(NEEDS) if backend == "both" else [backend]
    there = [name for name in wanted if all(map(find_spec, NEEDS[name]))]
    if not there:
        raise ImportError(f"the demo needs {backend}: pip install 'ppl_bif[all]'")
    return there


def _one(
    backend: str, network: str, data: digits.Digits, folder: Path, draws: int, console: Console
) -> Path:
    model, predict = _PREPARE[backend](network, data)
    guesses = predict(data.query_x).argmax(axis=1)
    accuracy = (guesses == data.query_y).mean()
    console.print(f"{model.num_weights:,} weights, {accuracy:.1%} of the test digits are right")
    store = folder / f"digits-{network}-{backend}.zarr"
    rows = Rows(data.train, data.query, data.train_ids, data.query_ids, data.pictures())
    settings = {"draws": draws, "chain_method": CHAIN_METHOD[network]}
    show(console, model, rows, guesses, store, kind="digit", **settings)
    return store


def _prepare_pyro(network: str, data: digits.Digits) -> tuple[Any, Callable[..., Any]]:
    import torch

    from ppl_bif.pyro import localize
    from ppl_bif_models import digits_torch

    net = digits_torch.train(digits_torch.NETWORKS[network](0), *data.train)
    model = localize(net, likelihood="categorical")
    return model, lambda x: net(torch.as_tensor(x)).detach().numpy()


def _prepare_numpyro(network: str, data: digits.Digits) -> tuple[Any, Callable[..., Any]]:
    import jax

    from ppl_bif.numpyro import localize
    from ppl_bif_models import digits_jax

    apply, init = digits_jax.NETWORKS[network]
    params = digits_jax.train(apply, init(jax.random.key(0)), *data.train)
    model = localize(apply, params, likelihood="categorical")
    return model, lambda x: np.asarray(apply(params, x))


_PREPARE = {"pyro": _prepare_pyro, "numpyro": _prepare_numpyro}
