"""One turn of the data benchmark: `python data_turns.py WHAT FOLDER [ROWS]` prints seconds, peak memory, and what was found.

Run as a file, also by an interpreter that has a peer and not us: so each contestant imports what it needs, and no more.
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FLOATS, INTS, SETS = ("f0", "f1", "f2", "f3", "f4", "f5"), ("i0", "i1", "i2", "i3"), ("c0", "c1", "c2", "c3")
PLACES = ["EWR", "JFK", "LGA", "BOS"]
REACH, TOP, CODE = 4.5, 999, r"^N\d{3}AA$"
NULLABLE = "fn"


class Peak:
    """The most anonymous memory that this process held, in megabytes; pages of mapped files are the system's to drop."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while not self._over.wait(0.01):
            if status.exists() and (held := re.search(r"RssAnon:\s+(\d+)", status.read_text())):
                self.mb = max(self.mb, int(held[1]) * 1024 / 1e6)
            else:
                self.mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def make(place: Path, rows: int) -> dict[str, Any]:
    """20 columns, made up by a seed; one row in ten thousand breaks a rule."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    folder = place / "parts"
    folder.mkdir()
    for number, first in enumerate(range(0, rows, 1_000_000)):
        n = min(1_000_000, rows - first)
        at = np.datetime64("2020-01-01", "us").astype("int64") + np.arange(first, first + n) * 1_000_000
        frame: dict[str, Any] = {"id": pl.Series(np.arange(first, first + n)).cast(pl.String)}
        frame["at"] = pl.Series(at).cast(pl.Datetime("us", "UTC"))
        frame |= {name: np.clip(rng.normal(size=n), -REACH, REACH) for name in FLOATS}
        frame |= {name: rng.integers(0, TOP + 1, n) for name in INTS}
        frame |= {name: pl.Series(PLACES).gather(rng.integers(0, 4, n)) for name in SETS}
        frame |= {name: rng.random(n) < 0.3 for name in ("b0", "b1")}
        frame["code"] = pl.Series(rng.integers(100, 999, n)).cast(pl.String)
        frame[NULLABLE] = pl.Series(np.where(rng.random(n) < 0.02, np.nan, rng.random(n))).fill_nan(None)
        wrong = rng.random(n) < 1e-4
        whole = pl.DataFrame(frame).with_columns(
            id="k" + pl.col("id"),
            code=pl.when(pl.Series(wrong)).then(pl.lit("X")).otherwise("N" + pl.col("code") + "AA"),
            i0=pl.when(pl.Series(rng.random(n) < 1e-4)).then(TOP + 1).otherwise("i0"),
            c0=pl.when(pl.Series(rng.random(n) < 1e-4)).then(pl.lit("SFO")).otherwise("c0"),
        )
        whole.write_parquet(folder / f"{number}.parquet")
    pl.scan_parquet(sorted(folder.glob("*.parquet"), key=lambda p: int(p.stem))).sink_parquet(place / "x.parquet")
    shutil.rmtree(folder)
    return {}


def rules() -> dict[str, Any]:
    """Rule -> what a row keeps, as Polars expressions: the same for everybody, in dataframely's names."""
    import polars as pl

    found: dict[str, Any] = {}
    for name in FLOATS:
        found |= {f"{name}|min": pl.col(name) >= -REACH, f"{name}|max": pl.col(name) <= REACH}
    for name in INTS:
        found |= {f"{name}|min": pl.col(name) >= 0, f"{name}|max": pl.col(name) <= TOP}
    found |= {f"{name}|check": pl.col(name).is_in(PLACES) for name in SETS}
    found["code|regex"] = pl.col("code").str.contains(CODE)
    found |= {f"{NULLABLE}|min": pl.col(NULLABLE) >= 0, f"{NULLABLE}|max": pl.col(NULLABLE) <= 1}
    others = ("id", "at", *FLOATS, *INTS, *SETS, "b0", "b1", "code")
    return found | {f"{name}|nullability": pl.col(name).is_not_null() for name in others}


def schema() -> Any:
    """The same as a dataframely schema."""
    import dataframely as dy

    columns: dict[str, Any] = {"id": dy.String(primary_key=True), "at": dy.Datetime(time_zone="UTC")}
    columns |= {name: dy.Float64(min=-REACH, max=REACH) for name in FLOATS}
    columns |= {name: dy.Int64(min=0, max=TOP) for name in INTS}
    columns |= {name: dy.String(check=lambda cell: cell.is_in(PLACES)) for name in SETS}
    columns |= {"b0": dy.Bool(), "b1": dy.Bool(), "code": dy.String(regex=CODE)}
    return columns | {NULLABLE: dy.Float64(nullable=True, min=0, max=1)}


def contract() -> Any:
    """The same as a contract of ours."""
    import flyball as fb

    columns = schema()
    made: Any = type(fb.Contract)
    return made("Wide", (fb.Contract,), {**columns, "at": fb.event_time(columns["at"])})


def validate_limit(place: Path) -> dict[str, Any]:
    """By hand: one streaming query."""
    import polars as pl

    rows = pl.scan_parquet(place / "x.parquet")
    sums = [(~keeps).sum().alias(rule) for rule, keeps in rules().items()]
    query = rows.select(pl.len().alias("rows"), pl.col("id").n_unique().alias("ids"), *sums)
    counts = query.collect(engine="streaming").row(0, named=True)
    assert counts.pop("ids") == counts["rows"]
    return {name: n for name, n in sorted(counts.items()) if n}


def validate_ours(place: Path) -> dict[str, Any]:
    """The survey that every large file gets."""
    import polars as pl

    from flyball.data import sift

    seen = sift.survey(pl.scan_parquet(place / "x.parquet"), contract())
    assert not len(sift.shared(seen.keys))
    return dict(sorted({**seen.broken, "rows": seen.rows}.items()))


def validate_dataframely(place: Path) -> dict[str, Any]:
    """Its own filter, on a frame."""
    import dataframely as dy
    import polars as pl

    observed: Any = type("Wide", (dy.Schema,), schema())
    frame = pl.read_parquet(place / "x.parquet")
    _, failed = observed.filter(frame)
    return dict(sorted({**{k: v for k, v in failed.counts().items() if v}, "rows": frame.height}.items()))


def validate_pandera(place: Path) -> dict[str, Any]:
    """On a Polars frame, lazily: all failures are reported."""
    import pandera.polars as pa
    import polars as pl

    frame = pl.read_parquet(place / "x.parquet")
    columns: dict[str, Any] = {"id": pa.Column(pl.String, unique=True), "at": pa.Column(pl.Datetime("us", "UTC"))}
    columns |= {n: pa.Column(pl.Float64, [pa.Check.ge(-REACH), pa.Check.le(REACH)]) for n in FLOATS}
    columns |= {n: pa.Column(pl.Int64, [pa.Check.ge(0), pa.Check.le(TOP)]) for n in INTS}
    columns |= {n: pa.Column(pl.String, pa.Check.isin(PLACES)) for n in SETS}
    columns |= {"b0": pa.Column(pl.Boolean), "b1": pa.Column(pl.Boolean)}
    columns["code"] = pa.Column(pl.String, pa.Check.str_matches(CODE))
    columns[NULLABLE] = pa.Column(pl.Float64, [pa.Check.ge(0), pa.Check.le(1)], nullable=True)
    found: dict[str, int] = {"rows": frame.height}
    names = {"greater_than_or_equal_to": "min", "less_than_or_equal_to": "max", "isin": "check", "str_matches": "regex"}
    try:
        pa.DataFrameSchema(columns).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as failed:
        for each in failed.schema_errors:
            rule = f"{each.schema.name}|{names[str(each.check.name)]}"
            found[rule] = len(each.failure_cases)
    return dict(sorted(found.items()))


def validate_great_expectations(place: Path) -> dict[str, Any]:
    """On a pandas frame, which is what it reads."""
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import pandas as pd

    frame = pd.read_parquet(place / "x.parquet")
    context = gx.get_context(mode="ephemeral")
    suite = gx.ExpectationSuite(name="wide")
    for name in FLOATS:
        suite.add_expectation(gxe.ExpectColumnValuesToBeBetween(column=name, min_value=-REACH, max_value=REACH))
    for name in INTS:
        suite.add_expectation(gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=TOP))
    for name in SETS:
        suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column=name, value_set=PLACES))
    suite.add_expectation(gxe.ExpectColumnValuesToBeBetween(column=NULLABLE, min_value=0, max_value=1))
    suite.add_expectation(gxe.ExpectColumnValuesToMatchRegex(column="code", regex=CODE))
    suite.add_expectation(gxe.ExpectColumnValuesToBeUnique(column="id"))
    for name in ("id", "at", *FLOATS, *INTS, *SETS, "b0", "b1", "code"):
        suite.add_expectation(gxe.ExpectColumnValuesToNotBeNull(column=name))
    kinds = {"float64": FLOATS, "int64": INTS, "str": ("id", *SETS, "code"), "bool": ("b0", "b1")}
    for kind, names in {**kinds, "datetime64[us, UTC]": ("at",)}.items():
        for name in names:
            suite.add_expectation(gxe.ExpectColumnValuesToBeInTypeList(column=name, type_list=[kind]))
    batch = context.data_sources.add_pandas("p").add_dataframe_asset("x").add_batch_definition_whole_dataframe("b")
    result = batch.get_batch(batch_parameters={"dataframe": frame}).validate(suite)
    found: dict[str, int] = {"rows": len(frame)}
    rules_of = {"between": "max", "set": "check", "regex": "regex", "null": "nullability", "unique": "unique"}
    for each in result.results:
        n = each.result.get("unexpected_count", 0)
        if n:
            kind = each.expectation_config.type.rpartition("_")[2]
            found[f"{each.expectation_config.kwargs['column']}|{rules_of[kind]}"] = n
    return dict(sorted(found.items()))


def ingest_limit(place: Path) -> dict[str, Any]:
    """By hand: good rows to one Parquet file and bad ones to another, each a streaming query; and keys are unique."""
    import polars as pl

    rows = pl.scan_parquet(place / "x.parquet")
    counts = rows.select(pl.len().alias("n"), pl.col("id").n_unique().alias("ids")).collect(engine="streaming").row(0)
    assert counts[0] == counts[1]
    known = rows.with_columns(pl.any_horizontal(~keeps for keeps in rules().values()).alias("bad"), _known="at")
    good = (
        known.filter(~pl.col("bad").fill_null(value=False)).drop("bad").sink_parquet(place / "good.parquet", lazy=True)
    )
    bad = known.filter(pl.col("bad")).drop("bad").sink_parquet(place / "bad.parquet", lazy=True)
    pl.collect_all([good, bad])
    lengths = [pl.scan_parquet(place / f"{n}.parquet").select(pl.len()).collect().item() for n in ("good", "bad")]
    return {"accepted": lengths[0], "quarantined": lengths[1]}


def ingest_ours(place: Path) -> dict[str, Any]:
    """One file into the Delta table and its quarantine, exactly once."""
    from flyball._kernel.place import Place
    from flyball.adapters.embedded.sources import FileReader
    from flyball.adapters.embedded.tables import DeltaTables
    from flyball.data import ingest
    from flyball.data.source import Files, Source

    shutil.rmtree(place / "tables", ignore_errors=True)
    source = Source("x", Files("x.parquet"), lambda rows: rows, contract(), place=Place(str(place / "app.py"), 1))
    reader = FileReader()
    (file,) = reader.files(source)
    done = ingest.ingest(source, DeltaTables(place / "tables"), reader, recipe="r", known_from=None, file=file).said
    return {"accepted": done.accepted, "quarantined": done.quarantined}


def _sum(rows: Any) -> Any:
    import polars as pl

    return rows.select(pl.len(), pl.col(*FLOATS, *INTS).sum(), pl.col("at").max(), pl.col("code").n_unique())


def read(place: Path) -> dict[str, Any]:
    """A version of ours: every column of it, summed up."""
    from flyball.adapters.embedded.tables import DeltaTables
    from flyball.data import dataset

    wide = contract()
    tables = DeltaTables(place / "tables")
    rows = dataset.read(tables, wide, dataset.latest(tables, wide))
    return {"found": str(_sum(rows).collect(engine="streaming").row(0))}


def scan_delta(place: Path) -> dict[str, Any]:
    """The same table, bare."""
    import polars as pl

    return {"found": str(_sum(pl.scan_delta(str(place / "tables" / "Wide"))).collect(engine="streaming").row(0))}


APP = '''
import dataframely as dy
import flyball as fb
from flyball import days, hours
from sklearn.linear_model import LogisticRegression

class Event(fb.Contract):
    """One event."""
    id = dy.String(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    x = dy.Float64()
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    y = fb.outcome(dy.Bool(nullable=True))

@fb.model(fb.features(Event.x), predicts=Event.y, asked=fb.before(Event.at, hours(0)))
def likely() -> LogisticRegression:
    return LogisticRegression()

app = fb.App(
    "events",
    sources=[fb.files("data/*.csv", prepare=lambda rows: rows, yields=Event)],
    model=likely,
    search=fb.search(trials=1, optimize=fb.roc_auc, split=fb.by_time(days(1))),
)
'''


def _events(place: Path) -> Any:
    """A thousand files in an app whose first apply has taken them in; the session that a new process would open."""
    from flyball import runtime
    from flyball.cycle import gather

    root = place / "events"
    first = not root.exists()
    if first:
        (root / "data").mkdir(parents=True)
        (root / "app.py").write_text(APP)
        for n in range(1000):
            lines = [f"{n}-{k},2013-01-{1 + n % 28:02}T00:00:00Z,{k},," for k in range(20)]
            (root / "data" / f"{n:04}.csv").write_text("\n".join(["id,at,x,settled,y", *lines]))
    loaded = runtime.load(str(root))
    session = runtime.open(loaded.app, runtime.Placement(root=loaded.root))
    if first:
        gather.gather(session)
        session = runtime.open(loaded.app, runtime.Placement(root=loaded.root))
    return session


def apply_again(place: Path) -> Callable[[], dict[str, Any]]:
    """What an apply does about a thousand files that are all in: looks, and ingests nothing."""
    from flyball.cycle import gather

    session = _events(place)

    def act() -> dict[str, Any]:
        assert gather.gather(session) == []
        return {}

    return act


def hash_again(place: Path) -> Callable[[], dict[str, Any]]:
    """The same files, hashed."""
    import hashlib

    _events(place)

    def act() -> dict[str, Any]:
        files = sorted((place / "events" / "data").iterdir())
        assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) == len(files)
        return {}

    return act


def erase(place: Path) -> dict[str, Any]:
    """One subject of the table: delete and compact; against writing the one file that holds the row, by hand."""
    import polars as pl

    from flyball.adapters.embedded.tables import DeltaTables
    from flyball.data import contract as contracts
    from flyball.data import dataset

    tables, spec = DeltaTables(place / "tables"), contracts.spec(contract())
    parts = list((place / "tables" / "Wide").rglob("*.parquet"))
    holds = next(p for p in parts if pl.scan_parquet(p).filter(pl.col("id") == "k5").select(pl.len()).collect().item())
    started = time.perf_counter()
    pl.scan_parquet(holds).filter(pl.col("id") != "k5").sink_parquet(place / "least.parquet")
    least = time.perf_counter() - started
    started = time.perf_counter()
    head = tables.head("Wide")
    done = tables.delete("Wide", pl.col("id") == "k5", dataset.schema(spec), head.batch, expect=head)
    tables.compact("Wide")
    seconds = time.perf_counter() - started
    assert done.rows == 1
    return {
        "seconds": seconds,
        "least_s": least,
        "rewritten": done.rewritten,
        "least": (place / "least.parquet").stat().st_size,
    }


TURNS: Mapping[str, Callable[[Path], Any]] = {
    name.replace("_", "-", 1) if name.startswith(("validate", "ingest")) else name: act
    for name, act in {
        "validate_ours": validate_ours,
        "validate_limit": validate_limit,
        "validate_dataframely": validate_dataframely,
        "validate_pandera": validate_pandera,
        "validate_great_expectations": validate_great_expectations,
        "ingest_ours": ingest_ours,
        "ingest_limit": ingest_limit,
        "read": read,
        "scan_delta": scan_delta,
        "apply-again": apply_again,
        "hash-again": hash_again,
        "erase": erase,
    }.items()
}


def _warm(what: str) -> None:
    """Load what the turn will use: what is imported is not what is measured."""
    import polars as pl

    assert pl.select(pl.lit(1)).item() == 1
    if what == "validate-dataframely":
        schema()
    elif what in ("validate-ours", "ingest-ours", "read", "scan_delta", "erase"):
        from flyball.adapters.embedded import sources, tables
        from flyball.data import ingest

        assert all((contract(), sources, tables, ingest))


def main() -> None:
    """Run the turn that the command line names."""
    what, place = sys.argv[1], Path(sys.argv[2])
    if what == "make":
        print(json.dumps(make(place, int(sys.argv[3]))))
        return
    act = TURNS[what]
    if what in ("apply-again", "hash-again"):
        ready = act(place)

        def act(_: Path) -> Any:
            return ready()

    _warm(what)
    peak = Peak()
    started = time.perf_counter()
    found = act(place)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_mb": peak.mb, "found": found, **(found if what == "erase" else {})}))


if __name__ == "__main__":
    main()
