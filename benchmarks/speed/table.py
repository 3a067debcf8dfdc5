"""The tables of the docs: ``python -m benchmarks.speed.table`` prints them as Markdown."""

from typing import Any

from benchmarks.speed.plot import LABELS, TITLES, latest

WHOLE = {
    "whole_mlp": "MLP",
    "whole_cnn": "CNN",
    "whole_resnet9": "ResNet-9",
    "whole_gpt": "GPT, 4 layers",
}


def main() -> None:
    """Print rates, then overheads."""
    found = latest()
    print("| case | subject | chain-steps a CPU-second | times devinterp |\n|---|---|---|---|")
    for case, title in TITLES.items():
        for name, label in LABELS.items():
            line = found.get((case, name, 1))
            if line:
                ratio = line.get("call_over_devinterp")
                against = spread(ratio, "{:.3g}") if ratio and name != "devinterp" else ""
                print(f"| {title} | {label} | {spread(line['call'], '{:,.0f}')} | {against} |")
                title = ""
    print("\n| network | Pyro | NumPyro |\n|---|---|---|")
    for case, title in WHOLE.items():
        cells = [
            overhead(found.get((case, ours, 1)), loop)
            for ours, loop in (("pyro", "bare_torch"), ("numpyro", "bare_jax"))
        ]
        print(f"| {title} | {' | '.join(cells)} |")


def overhead(line: Any, loop: str) -> str:
    """Cost of a whole run over that of a loop: ratios of rates upside down."""
    if line is None:
        return "not measured"
    middle, least, most = (1 / ratio for ratio in line[f"call_over_{loop}"])
    return spread([middle, most, least], "{:.2f}")


def spread(values: list[float], style: str) -> str:
    """Show a median and its range."""
    middle, least, most = (style.format(v) for v in values)
    return f"{middle} ({least} ... {most})"


if __name__ == "__main__":
    main()
