"""The GPU table: ``python -m benchmarks.speed.gpu``, or ``--device cpu --small`` to try it.

Every row in a process of its own. Adds lines to ``results/gpu.jsonl``, except those of small
networks, and prints a table.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.speed.compare import RESULTS
from benchmarks.speed.gpu_rows import ROWS
from benchmarks.speed.table import spread

HEAD = (
    "| network | weights | scoring, share of bare | steps, share of bare | draw over bare passes "
    "| peak, GB |\n|---|---|---|---|---|---|"
)
# A row of a large network takes minutes, most of them to make its weights.
LONGEST = 3600
# JAX would take most of the GPU at once.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def main() -> int:
    """Measure the rows that are asked for; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks of the same kinds")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--results", type=Path, help="where lines are added")
    options = parser.parse_args()
    kept = options.results or (None if options.small else RESULTS.with_name("gpu.jsonl"))
    if missing(options.device):
        print("PyTorch sees no GPU here: nothing is measured; --device cpu --small tries the rows")
        return 1
    failed, lines = [], []
    for row in options.rows:
        line = in_process(row, options.device, small=options.small, turns=options.turns)
        if line is None:
            failed.append(row)
            continue
        lines.append(line)
        if kept is not None:
            with kept.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print("\n".join([HEAD, *map(shown, lines)]))
    return int(bool(failed))


def missing(device: str) -> bool:
    """Say whether a GPU is asked for and there is none."""
    import torch

    return device.startswith("cuda") and not torch.cuda.is_available()


def in_process(row: str, device: str, *, small: bool, turns: int) -> dict[str, Any] | None:
    """Measure a row in a process of its own; None, and why, where it fails."""
    command = [sys.executable, "-m", "benchmarks.speed.gpu_measure", row, "--device", device]
    command += ["--turns", str(turns), *(["--small"] if small else [])]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST
    )
    if done.returncode:
        why = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
        print(f"{row} failed: {why}", file=sys.stderr, flush=True)
        return None
    print(done.stdout.splitlines()[-1], flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def shown(line: dict[str, Any]) -> str:
    """Show a line as a row of the table."""
    shares = [
        spread(line[name], "{:.2f}") for name in ("score_share", "step_share", "draw_over_bare")
    ]
    peak = "not known" if line["peak_gb"] is None else f"{line['peak_gb']:.1f}"
    return f"| {line['row']} | {line['weights']:,} | {' | '.join(shares)} | {peak} |"


if __name__ == "__main__":
    sys.exit(main())
