"""Promise 1 in a loop: `python -m tests.soak.kills [ROUNDS] [http]`, outside of the suite.

Each round a server answers under load, is killed (SIGKILL) at a random moment, and what it left is held against what it said.
Without `http` it is a recorder alone, whose callers never wait for anything but the journal; with it, a server and its callers.
The first answer that was acknowledged and is not found ends the loop.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.promises.test_01_acknowledged_is_on_disk import killed, left_in
from tests.promises.test_02_served_is_logged import BLOCK, left, served


def one(place: Path, after: float) -> tuple[int, int]:
    """Kill a recorder; returns how many answers it acknowledged, and how many are unknown."""
    acknowledged, handed_out = killed(place, "acknowledged", after)
    found = left_in(place)
    if lost := acknowledged - found.ids:
        raise SystemExit(f"{len(lost)} acknowledged answers are lost in {place}: {sorted(lost)[:3]}")
    if not (handed_out <= found.spoken_for and found.unknown <= 512):
        raise SystemExit(
            f"{place}: {len(handed_out - found.spoken_for)} numbers are not spoken for, {found.unknown} unknown"
        )
    return len(acknowledged), found.unknown


def one_over_http(place: Path, after: float) -> tuple[int, int]:
    """Kill a server; as `one`."""
    book = served(place, "acknowledged", after, signal.SIGKILL)
    found = left(place)
    if lost := set(book.given) - found.ids:
        raise SystemExit(f"{len(lost)} acknowledged answers are lost in {place}: {sorted(lost)[:3]}")
    if found.unknown > BLOCK or len(found.ids) - len(book.given) > book.unheard:
        raise SystemExit(f"{place}: {found.unknown} unknown, {len(found.ids)} logged, {len(book.given)} served")
    return len(book.given), found.unknown


def main(rounds: int, http: bool) -> None:
    """Kill so often, and say how many answers were at stake."""
    chance, given, unknown = random.Random(), 0, 0
    for number in range(1, rounds + 1):
        place = Path(tempfile.mkdtemp())
        answered, open_ = (one_over_http if http else one)(place, chance.uniform(0.02, 0.5))
        given, unknown = given + answered, max(unknown, open_)
        shutil.rmtree(place)
        print(
            f"\r{number} kills, {given:,} answers acknowledged, none lost, at most {unknown} unknown",
            end="",
            flush=True,
        )
    print()


if __name__ == "__main__":
    said = sys.argv[1:]
    main(next((int(each) for each in said if each.isdecimal()), 100), "http" in said)
