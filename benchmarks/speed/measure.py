"""Time one subject in a process of its own: ``python -m benchmarks.speed.measure CASE SUBJECT``.

Prints a line of JSON: chain-steps a CPU-second, of draws alone and of a whole call that is not the
first; and CPU-seconds that only the first call takes.
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
    """Time a short run, then a short and a long one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("subject", choices=SUBJECTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    case, subject = CASES[options.case], SUBJECTS[options.subject]
    # devinterp draws at every step.
    each = case.thinning if options.subject == "devinterp" else 1
    few, many = (each * draws for draws in case.draws)
    began = time.process_time()
    run = subject(case)
    run(few)
    first = time.process_time() - began
    short, long = timed(run, few), timed(run, many)
    steps = case.chains * case.thinning * case.draws[1]
    rate = steps * (many - few) / many / (long - short)
    print(json.dumps({"rate": rate, "call": steps / long, "setup": first - short}))


def timed(run: Callable[[int], Any], draws: int) -> float:
    """CPU-seconds of a run."""
    began = time.process_time()
    run(draws)
    return time.process_time() - began


if __name__ == "__main__":
    main()
