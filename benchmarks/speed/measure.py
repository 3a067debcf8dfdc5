"""Time one subject in a process of its own: ``python -m benchmarks.speed.measure CASE SUBJECT``.

Prints a line of JSON: chain-steps a CPU-second without set-up, and of the whole call.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from typing import Any

from benchmarks.speed.cases import CASES
from benchmarks.speed.subjects import SUBJECTS


def main() -> None:
    """Time a first long run, then a short and a long one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("subject", choices=SUBJECTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    case, subject = CASES[options.case], SUBJECTS[options.subject]
    peer = options.subject == "devinterp"
    few, many = case.peer_draws if peer else case.draws
    # The first run holds all set-up, compiling among it.
    began = time.process_time()
    run = subject(case)
    run(many)
    first = time.process_time() - began
    seconds = [timed(run, few), timed(run, many)]
    steps = case.chains * (1 if peer else case.thinning)
    rate = steps * (many - few) / (seconds[1] - seconds[0])
    print(json.dumps({"rate": rate, "whole": steps * many / first}))


def timed(run: Callable[[int], Any], draws: int) -> float:
    """CPU-seconds of a run."""
    began = time.process_time()
    run(draws)
    return time.process_time() - began


if __name__ == "__main__":
    main()
