"""Time one subject in a process of its own: ``python -m benchmarks.speed.measure CASE SUBJECT``.

Prints a line of JSON: chain-steps a CPU-second without set-up, and of the whole call.
"""

import argparse
import json
import time
import warnings

from benchmarks.speed.cases import CASES
from benchmarks.speed.subjects import SUBJECTS


def main() -> None:
    """Run a short and a long run once each, after one that is not timed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("subject", choices=SUBJECTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    case, subject = CASES[options.case], SUBJECTS[options.subject]
    peer = options.subject == "devinterp"
    few, many = case.peer_draws if peer else case.draws
    subject(case, 2)
    seconds = []
    for draws in (few, many):
        began = time.process_time()
        subject(case, draws)
        seconds.append(time.process_time() - began)
    steps = case.chains * (1 if peer else case.thinning)
    rate = steps * (many - few) / (seconds[1] - seconds[0])
    print(json.dumps({"rate": rate, "whole": steps * many / seconds[1]}))


if __name__ == "__main__":
    main()
