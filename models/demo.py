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
from rich.table import Table

import ppl_bif as bif
from ppl_bif.schema import group
from ppl_bif_models import digits

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
    console.rule("What there is now")
    for report in made:
        store, picture = report.with_suffix(".zarr"), report.with_suffix(".png")
        console.print(f"report {report}   picture {picture}   run {store}", soft_wrap=True)
    console.print(
        f"Next: open a report; `ppl-bif top {made[0].with_suffix('.zarr')} -k 10`; "
        f"`ppl-bif diagnose {made[0].with_suffix('.zarr')}`; "
        f"`ppl-bif demo --draws 2000 --out more` for more resolved ranks.",
        soft_wrap=True,
    )


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
    idata = bif.sample(
        model,
        train=data.train,
        query=data.query,
        train_ids=data.train_ids,
        query_ids=data.query_ids,
        chains=4,
        draws=draws,
        chain_method=CHAIN_METHOD[network],
        store=store,
        constant_data={**data.pictures(), "query_prediction": ("query", guesses)},
        progress=True,
    )
    bif.diagnose(idata)
    chosen = _queries(data, guesses)
    scores = bif.influence(idata)
    _print_top(console, bif.top(scores.sel(query=chosen), k=3), idata)
    bif.plot_top(scores, query=chosen, k=5, idata=idata).savefig(store.with_suffix(".png"))
    return bif.write_report(idata, store.with_suffix(".html"), queries=chosen)


def _queries(data: digits.Digits, guesses: np.ndarray) -> list[int]:
    """Two digits the network got wrong, and three that it got right."""
    wrong = np.flatnonzero(guesses != data.query_y)[:2]
    right = np.flatnonzero(guesses == data.query_y)[[0, 20, 40]]
    return data.query_ids[np.concatenate([wrong, right])].tolist()


def _print_top(console: Console, best: Any, idata: Any) -> None:
    constant = group(idata, "constant_data")
    assert constant is not None
    for query in best["query"].values:
        row = constant.sel(query=query)
        told, guess = int(row["query_target"]), int(row["query_prediction"])
        mistake = f", taken for a {guess}" if told != guess else ""
        table = Table("", "train image", "digit", "influence (nats)", "")
        table.title = f"test image {query}: a {told}{mistake}"
        for direction in best["direction"].values:
            for rank in best["rank"].values:
                score = best.sel(query=query, direction=direction, rank=rank)
                digit = int(constant["train_target"].sel(train=score["train"]))
                error = f"{float(score['influence']):+.2g} ± {float(score['mcse']):.1g}"
                mark = "" if score["resolved"] else "unresolved"
                table.add_row(str(direction), str(score["train"].item()), str(digit), error, mark)
        console.print(table)


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
