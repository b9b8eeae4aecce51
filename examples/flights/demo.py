"""`make demo`: the whole story on real data, told as it happens. Departures from New York, 2013.

A model learns from January to June and passes its gates; a real server and a real loop start; July is lived through again,
question by question, on a stepped clock; the loop retrains every week and releases what is good in stages; then somebody
pushes a broken version past its gates, and the loop takes it back. Every figure is asserted, not hoped for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from examples.flights.replay import Replay, questions
from flyball.adapters.embedded.clock import step

APP, BROKEN = "examples/flights", "examples/flights/broken.py"
START = datetime(2013, 7, 1, tzinfo=UTC)
PUSHED = datetime(2013, 7, 11, tzinfo=UTC)
END = datetime(2013, 7, 12, 12, tzinfo=UTC)
say = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


def main() -> int:
    """Tell the story; returns the exit code."""
    started = time.perf_counter()
    home = Path(tempfile.mkdtemp(prefix="flyball-demo-"))
    os.environ.setdefault("FLYBALL_KEY", str(home / "key" / "signing.pem"))
    try:
        chapters(Places(home))
    finally:
        kept = Path(APP) / ".flyball" / "demo"
        shutil.rmtree(kept, ignore_errors=True)
        if (home / "state" / "reports").is_dir():
            shutil.copytree(home / "state" / "reports", kept, dirs_exist_ok=True)
        shutil.rmtree(home)
    say.print(f"\n[bold]The whole story took {time.perf_counter() - started:.0f} s.[/] [dim]Reports: {kept}[/]")
    return 0


class Places:
    """Where the demo lies, and how its verbs are run."""

    def __init__(self, home: Path) -> None:
        self.state, self.clock = home / "state", home / "clock"
        step(self.clock, START)

    def flyball(self, verb: str, *arguments: str, ends: int = 0, quiet: bool = False) -> str:
        """Run one verb as a user would; its output is shown, or returned."""
        where = ["--home", str(self.state), "--clock", str(self.clock)]
        command = [sys.executable, "-m", "flyball", verb, *arguments, *where]
        done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE if quiet else None)
        if done.returncode != ends:
            raise SystemExit(f"flyball {verb} {' '.join(arguments)} ended with {done.returncode}, not with {ends}")
        return done.stdout or ""

    def told(self, verb: str, *arguments: str) -> Any:
        """What a verb says as JSON."""
        return json.loads(self.flyball(verb, *arguments, "--json", quiet=True))


def chapters(places: Places) -> None:
    """Chapter by chapter."""
    title("1. Ingest a year, learn from January to June, pass the gates", f"flyball apply {APP} --until 2013-07-01")
    places.flyball("apply", APP, "--until", f"{START:%Y-%m-%d}")
    title("2. Serve, watch, retrain: one command", f"flyball up {APP}")
    with up(places) as address:
        replay = Replay(address, places.state, places.clock, questions(START, END), told, START)
        title("3. July again: a question two hours before every departure, its outcome at landing", "")
        first_days(replay)
        title("4. Somebody is in a hurry: labels swapped, gates overridden", f"flyball promote {APP} lateness-N ...")
        broken = push(places)
        aborted = fall(replay, broken)
    title("5. What there is now", f"flyball status {APP}")
    places.flyball("status", APP)
    check(places, replay, broken, aborted)
    title("6. Why was this the answer?", f"flyball why {APP} {replay.ids[-1]}")
    places.flyball("why", APP, replay.ids[-1])
    title("7. The report", f"flyball report {APP}")
    places.flyball("report", APP)


def first_days(replay: Replay) -> None:
    """Ten days in which the loop is left alone: it retrains on Monday, and releases or holds what comes of it."""
    days = (PUSHED - START).days
    thought: dict[str, Any] = {}
    with say.status("") as status:
        for day in range(days):
            thought = replay.until(START + timedelta(days=day + 1))
            monitors = ", ".join(
                f"{name} {state.split(' (')[0]}" for name, state in thought["models"][0]["monitors"].items()
            )
            status.update(f"{replay.now:%A %d %B}: {len(replay.ids):,} answered; {escape(monitors)}")
    seconds = replay.seconds / max(1, len(replay.ids))
    say.print(f"{len(replay.ids):,} questions answered over HTTP in ten days, {seconds * 1000:.1f} ms each")
    say.print(
        f"[dim]the loop thinks: {escape(thought['models'][0]['release'])}; {escape(thought['models'][0]['training'])}[/]"
    )


def push(places: Places) -> str:
    """Train the broken version, see the gates refuse it, and push it all the same; returns its name."""
    applied = json.loads(places.flyball("apply", BROKEN, "--json", ends=3, quiet=True))["models"][0]
    assert applied["decision"] == "rejected", applied["decision"]
    failed = [v["condition"] for v in applied["verdicts"] if v["outcome"] == "fail"]
    say.print(f"[red]✗[/] {applied['version']} is rejected: {escape('; '.join(failed))}")
    places.flyball("promote", BROKEN, applied["version"], ends=3, quiet=True)
    places.flyball("promote", BROKEN, applied["version"], "--override-gates", "--reason", "the sprint ends today")
    return str(applied["version"])


def fall(replay: Replay, broken: str) -> datetime:
    """Live on until the loop has taken it back; returns when it did."""
    while replay.now < END:
        thought = replay.until(replay.now + timedelta(hours=3))
        if thought["models"][0]["candidate"] != broken:
            fell = replay.now
            taken = fell - PUSHED
            replay.until(END)
            say.print(f"[green]✓[/] taken back {taken.total_seconds() / 3600:.0f} hours of July after it was pushed")
            return fell
    raise SystemExit(f"{broken} is still on its way")


def check(places: Places, replay: Replay, broken: str, aborted: datetime) -> None:
    """The figures of the story, from what is recorded."""
    with ThreadPoolExecutor() as both:
        story, status = both.map(places.told, ("report", "status"), (APP, APP))
    totals, asked = story["totals"], len(replay.ids)
    assert totals["questions"] == totals["answered"] == asked > 9_000 and totals["failed"] == 0, totals
    assert status["journal"] == {"recorded": totals["attempts"], "refused": 0, "unknown": 0}, status["journal"]
    assert totals["attempts"] == asked + totals["shadows"] + totals["failures"], totals
    posted = replay.outcomes["accepted"]
    assert (totals["settled"] + totals["void"], totals["unmatched"]) == (posted, 0) and posted > 9_000, totals
    ways = {way["version"]: way for way in story["ways"]}
    promoted = [name for name, way in ways.items() if way["ended"] == "promoted"]
    assert promoted and all(len(ways[name]["stages"]) == 3 for name in promoted), ways
    assert story["champion"] == promoted[-1], story["champion"]
    held = [t for t in story["trainings"] if t["decision"] == "held"]
    bad = ways[broken]
    assert bad["overridden"] and bad["ended"] == "aborted" and len(bad["stages"]) == 1, bad
    assert replay.answered[f"{broken} canary"] == 0, "no caller ever got its answer"
    assert aborted - PUSHED <= timedelta(hours=36), aborted
    for way in ways.values():
        assert way["both"] >= 0.99 * way["questions"], "shadows are computed, not dropped"
    say.print(
        f"\n{asked:,} asked, {totals['answered']:,} answered, {status['journal']['recorded']:,} attempts recorded, 0 unknown; "
        f"{posted:,} outcomes joined ({totals['void']} void)\n{', '.join(promoted)} went through shadow and two canaries to "
        f"champion, {len(held)} held by gates; {broken} fell in shadow, {bad['both']:,} questions compared, 0 answers given"
    )


@contextmanager
def up(places: Places) -> Iterator[str]:
    """`flyball up` in processes of its own; yields the address of its server."""
    where = ["--home", str(places.state), "--clock", str(places.clock)]
    command = [sys.executable, "-m", "flyball", "up", APP, *where, "--port", "0", "--every", "0.2", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        said = ""
        while not said.rstrip().endswith("}") and process.poll() is None:
            said += process.stdout.readline()
        if process.poll() is not None:
            raise SystemExit(f"flyball up ended with {process.returncode}")
        address = str(json.loads(said)["address"])
        say.print(f"[green]✓[/] {address} answers; the loop looks")
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


def told(decided: dict[str, Any]) -> None:
    """What the loop decided, as it decides it."""
    say.print(f"[dim]{datetime.fromisoformat(decided['at']):%b %d %H:%M}[/]  {escape(decided['what'])}")


def title(text: str, command: str) -> None:
    """The head of a chapter."""
    say.print(f"\n[bold]{text}[/]" + (f"\n[dim]$ {command}[/]" if command else ""))


if __name__ == "__main__":
    sys.exit(main())
