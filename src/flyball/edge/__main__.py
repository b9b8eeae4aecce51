"""`python BUNDLE.zip < rows.jsonl`: one JSON row a line in, one answer a line out; without rows, what the bundle is.

A row is a request; the features that are handed over stand in it under "_features". A row that is refused is answered by its
reason, under "refused".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .model import Edge, load
from .refused import Refused


def main(path: str) -> int:
    """Answer standard input; returns the exit code: 1 where a row was refused."""
    edge = load(path)
    if sys.stdin.isatty():
        said = {"model": edge.model, "version": edge.version, "handed": edge.handed, "unchecked": edge.unchecked}
        print(json.dumps({**said, "check": edge.selfcheck()}, indent=2))
        return 0
    failed = 0
    for line in sys.stdin:
        if line.strip():
            found = answered(edge, line)
            failed |= "refused" in found
            print(json.dumps(found))
    return int(failed)


def answered(edge: Edge, line: str) -> dict[str, Any]:
    """What is said of one line."""
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise Refused("A row is a JSON object.")
        features = row.pop("_features", None)
        return edge.predict(row, features)
    except (Refused, json.JSONDecodeError) as error:
        return {"refused": str(error)}


if __name__ == "__main__":
    # Run as `python BUNDLE.zip`, this package lies within the bundle; run as a module, the bundle is named.
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parents[1])))
