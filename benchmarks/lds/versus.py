"""The attribution table: ``python -m benchmarks.lds.versus``.

LDS of BIF and of the peers on the same retrainings, each difference paired. Of BIF, what
``refined`` has kept, and the first run by each of ``--settings`` (``ours``), shrunk as by default,
at most 1,000 draws a chain; of a peer, its default, what else it recommends, and the best of its
grid by this very truth (``peers``). Writes and prints ``results/versus.jsonl``, from which
``--plot`` draws. Methods of which no scores lie here keep what was told of them before, unpaired.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import ppl_bif as bif
from benchmarks.lds import judge, peers, refined, tasks
from benchmarks.lds.ours import BACKENDS, RUNS
from ppl_bif.evaluation import ceiling, compare

RESULTS = Path(__file__).parent / "results" / "versus.jsonl"
PICTURES = Path(__file__).parents[2] / "docs" / "assets"
PEERS = {
    "ekfac": "EK-FAC",
    "ifcg": "IF-CG",
    "trak": "TRAK × 5",
    "graddot": "GradDot",
    "gradcos": "GradCos",
    "random": "random",
}
HEAD = (
    "| task | method | settings | LDS | 95% interval | BIF less this, paired | passes | seconds |"
    "\n|---|---|---|---|---|---|---|---|"
)
DRAWS = 1000
NAMES = {
    "digits_mlp": "digits MLP",
    "digits_cnn": "digits CNN",
    "fashion_cnn": "Fashion-MNIST CNN",
    "cifar_resnet9": "CIFAR-10 ResNet-9",
    "verses_gpt": "GPT on verses",
}


def main() -> None:
    """Judge what is there, print the table, or draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=[], help="to judge; none prints what there is")
    parser.add_argument("--settings", nargs="+", default=["default"], help="names of our runs")
    parser.add_argument("--plot", action="store_true")
    options = parser.parse_args()
    for name in options.tasks:
        lines = with_older(results(), judged(name, options.settings))
        RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print("\n".join([HEAD, *map(shown, results())]))
    if options.plot:
        for name in {line["task"] for line in results()}:
            draw(name)


def results() -> list[dict[str, Any]]:
    """Lines of the table."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def with_older(older: list[dict[str, Any]], made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put lines in place of older ones; what was not made anew is not paired with what was."""
    tasks_made, names = {line["task"] for line in made}, {line["method"] for line in made}
    kept = [line for line in older if line["task"] not in tasks_made]
    apart = [
        line | {"less": None}
        for line in older
        if line["task"] in tasks_made and line["method"] not in names
    ]
    return sorted([*kept, *made, *apart], key=_place)


def _place(line: dict[str, Any]) -> tuple[int, int]:
    words = ("BIF", *PEERS.values())
    method = next(i for i, word in enumerate(words) if line["method"].startswith(word))
    return list(NAMES).index(line["task"]), method


def judged(name: str, settings: list[str]) -> list[dict[str, Any]]:
    """Compare all methods on a task; BIF's first run is what others are held against."""
    task = tasks.load(name)
    methods, about = {}, {}
    for setting, backend in product(settings, BACKENDS):
        path = RUNS / f"{name}-{backend}-{setting}-0.npz"
        if path.exists():
            run = judge.Run(name, backend, setting, 0, path)
            label = f"BIF, {backend}" if setting == "default" else f"BIF, {backend}, {setting}"
            methods[label], about[label] = _ours(run, task)
    for path in sorted(refined.SCORES.glob(f"{name}-*.npz")):
        for label, scores, line in _refined(path):
            methods[label], about[label] = scores, line
    for method, word in PEERS.items():
        for role in peers.ROLES:
            path = peers.SCORES / f"{name}-{method}-{role}.npy"
            if path.exists() and not (role == "best" and _only_default(name, method)):
                label = word if role == "default" else f"{word}, {role}"
                methods[label], about[label] = np.load(path), _theirs(name, method, role)
    found, top = compare(methods, task.truth), ceiling(task.truth)
    first = found["attributor"].values[0]
    lines = []
    for label in methods:
        one = found.sel(attributor=label)
        apart = found.sel(attributor=first, other=label)
        lines.append(
            {
                "task": name,
                "method": label,
                "lds": _round(one["lds"], one["low"], one["high"]),
                "reference": first,
                "less": _round(
                    apart["difference"], apart["difference_low"], apart["difference_high"]
                ),
                "ceiling": round(top, 4),
                **about[label],
            }
        )
    return lines


def _ours(run: judge.Run, task: tasks.Task) -> tuple[np.ndarray, dict[str, Any]]:
    with np.load(run.path) as kept:
        attrs, seconds = json.loads(str(kept["attrs"])), float(kept["seconds"])
        chains, drawn = kept["train"].shape[:2]
    draws = min(DRAWS, drawn)
    judge.SCORES.mkdir(parents=True, exist_ok=True)
    about = {
        "settings": f"{run.name}, {chains} x {draws} draws",
        "device": attrs.get("device", "cpu"),
        "seconds": round(seconds * draws / drawn, 1),
        "passes": judge.passes(attrs, task, draws) if "steps_per_draw" in attrs else None,
    }
    return judge.scores(run, "eb", draws), about


def _refined(path: Path) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Give what refine gave, and its first order, with their names and what they cost."""
    with np.load(path) as kept:
        line = json.loads(str(kept["line"]))
        about = {
            "settings": f"{_settings(line['settings'])}, {line['chains']} x {line['draws']} draws",
            "device": line["device"],
            "seconds": line["seconds_to_sample"] + line["seconds_to_refine"],
            "passes": None,
        }
        label = f"BIF, {path.stem.split('-', 1)[1].replace('-', ', ', 1)}"
        alone = line["settings"].get("first_order", False)
        yield f"{label}, first order, shrunk" if alone else label, kept["influence"], about
        yield f"{label}, first order", kept["first_order"], about


def _theirs(name: str, method: str, role: str) -> dict[str, Any]:
    line = _line(name, method, role)
    return {
        "settings": line["settings"],
        "device": line.get("device", "cpu"),
        "seconds": line["seconds"],
        "passes": line["passes"],
    }


def _line(name: str, method: str, role: str) -> dict[str, Any]:
    word = peers.BEST if role == "best" else role
    lines = [json.loads(line) for line in peers.RESULTS.read_text().splitlines()]
    return [
        line
        for line in lines
        if (line["task"], line["method"]) == (name, method) and word in line["role"]
    ][-1]


def _only_default(name: str, method: str) -> bool:
    """Say whether the best of the grid is the default, which stands there already."""
    return "default" in _line(name, method, "best")["role"]


def _round(*values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]


def shown(line: dict[str, Any]) -> str:
    """Show a line as a row of the table."""
    value, low, high = line["lds"]
    passes = "not counted" if line["passes"] is None else f"{line['passes'] / 1e6:,.2f} M"
    where = "" if line["device"] == "cpu" else f" ({line['device']})"
    cells = [
        NAMES[line["task"]],
        line["method"],
        _settings(line["settings"]),
        f"{value:.3f}",
        f"{low:.3f} … {high:.3f}",
        _apart(line),
        passes,
        f"{line['seconds']:,.0f}{where}",
    ]
    return f"| {' | '.join(cells)} |"


def _settings(settings: dict[str, Any] | str) -> str:
    if isinstance(settings, str):
        return settings
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _apart(line: dict[str, Any]) -> str:
    if line["less"] is None:
        return "not paired"
    if line["method"] == line["reference"]:
        return ""
    apart, least, most = line["less"]
    return f"{apart:+.3f} ({least:+.3f} … {most:+.3f})"


def draw(name: str) -> None:
    """Draw a task's part of the table as a forest."""
    lines = [line for line in results() if line["task"] == name]
    names, first = [line["method"] for line in lines], lines[0]["reference"]
    own = dict(
        zip(("lds", "low", "high"), np.array([line["lds"] for line in lines]).T, strict=True)
    )
    less = np.array([line["less"] or 3 * [np.nan] for line in lines])
    # Each less the first, as the figure says it.
    apart = {
        "difference": -less[:, 0],
        "difference_low": -less[:, 2],
        "difference_high": -less[:, 1],
    }
    found = xr.Dataset(
        {key: ("attributor", value) for key, value in own.items()}
        | {key: (("attributor", "other"), value[:, None]) for key, value in apart.items()},
        coords={"attributor": names, "other": [first]},
    )
    figure = bif.plot_lds(found, reference=first, ceiling=lines[0]["ceiling"], title=NAMES[name])
    figure.savefig(PICTURES / f"lds_{name}.png", dpi=150)


if __name__ == "__main__":
    main()
