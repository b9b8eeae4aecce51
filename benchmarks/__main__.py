"""`python -m benchmarks NAME [--json]`: run one benchmark; `--list` names them."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys

NAMES = ("data", "features", "learn", "plan", "predicting", "serving", "startup")


def main() -> int:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="one JSON object a line per case")
    parser.add_argument("--list", action="store_true", help="name the benchmarks")
    chosen = parser.parse_args()
    if chosen.list or chosen.name is None:
        print("\n".join(NAMES))
        return 0
    # Ended from outside, it still stops the servers that it started and removes its folders.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for case in importlib.import_module(f"benchmarks.{chosen.name}").cases():
        print(case.row() if chosen.json else case.table(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
