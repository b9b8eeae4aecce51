"""Every feature of every question of the past, as it was known when each was asked.

Everything is a join of sorted columns: a question at `asked` finds, with `join_asof`, the running state of its entity after
the last event strictly before it. Windows keep running totals, so a span is the difference of two of them. `latest` keeps
the running best **rank**: the place of a version by (event time, `_known`, `_batch`, key), where the later is the better.

Two things do not fit a running state, and are added exactly:
- a correction ends a version. For windows such versions are events of their own, which enter and leave. For `latest` the
  successor usually wins anyway; only where it moved to another entity or an earlier time is the version **closed**, and
  found by a sweep over closed versions alone;
- a question never sees its own row: windows subtract it, and `latest` falls back to the best row of another key.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import polars as pl

from flyball._kernel.errors import DataError
from flyball.data import contract
from flyball.data.contract import Contract, Spec
from flyball.learn.features import meaning
from flyball.learn.features.declare import Computed, FeatureSet, Given, Latest, Window
from flyball.learn.features.meaning import NEVER


def build(
    features: FeatureSet, question: type[Contract], questions: pl.DataFrame, tables: Mapping[str, pl.LazyFrame]
) -> pl.DataFrame:
    """The features of every question, one row each, in the order of `questions`.

    Args:
        features: what to build.
        question: the contract of the questions.
        questions: the request columns of `question` (key included) and `_asked`.
        tables: contract name -> observation frame (contract columns, `_batch`, `_known`, `_outcome_known`).

    Returns:
        One column per output of `features`. A mean or sum is Float64, a count Int64, anything else of its column's type.

    Raises:
        DeclarationError: what `meaning.check` refuses.
        DataError: `table-not-given`, `column-not-given`, `two-versions-at-once`, `number-too-large`.
    """
    meaning.check(features, question)
    spec = contract.spec(question)
    _need(questions.columns, {*features.reads(question), *spec.key, "_asked"}, "the questions")
    questions = questions.with_row_index("_row").sort("_asked")
    parts = [questions.select("_row"), _requested(features, questions)]
    for table in features.tables():
        wanted = [f for f in features.features if isinstance(f, Latest | Window) and f.table is table]
        parts += _looked_up(wanted, question, questions, tables)
    outputs = [o.name for o in features.outputs(question)]
    return pl.concat(parts, how="horizontal").sort("_row").select(outputs)


def versions(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Add to versions `_id` (their place), `_chain` (the same for all of one key) and `_until` (NEVER if current still).

    Args:
        rows: `key`, `_known` (Int64 microseconds), `_batch` and anything else.
        key: the key columns.

    Raises:
        DataError: `two-versions-at-once`.
    """
    rows = rows.with_row_index("_id")
    # Equal keys have equal hashes: where hashes are unique, and they nearly always are, there is nothing to compare.
    hashes = rows.select(key).hash_rows()
    if hashes.n_unique() == rows.height:
        return rows.with_columns(_chain="_id", _until=pl.lit(NEVER))
    again = rows.filter(hashes.is_duplicated()).select("_id", *key, "_known", "_batch")
    again = again.with_columns(_chain=pl.col("_id").min().over(key)).sort("_chain", "_known", "_batch")
    double = again.filter(again.select("_chain", "_known", "_batch").is_duplicated())
    if double.height:
        raise meaning.twice(double["_batch"][0])
    again = again.select("_id", "_chain", _until=pl.col("_known").shift(-1).over("_chain").fill_null(NEVER))
    return rows.join(again, on="_id", how="left", maintain_order="left").with_columns(
        pl.col("_chain").fill_null(pl.col("_id")), pl.col("_until").fill_null(NEVER)
    )


def _requested(features: FeatureSet, questions: pl.DataFrame) -> pl.DataFrame:
    """What is taken or computed from the request."""
    found: dict[str, pl.Expr] = {}
    for feature in features.features:
        match feature:
            case Given():
                found[feature.name] = pl.col(feature.name)
            case Computed():
                found[feature.name] = feature.expression.polars
    return questions.with_columns(**found).select(list(found))


def _looked_up(
    features: Sequence[Latest | Window],
    question: type[Contract],
    questions: pl.DataFrame,
    tables: Mapping[str, pl.LazyFrame],
) -> list[pl.DataFrame]:
    """The outputs of the features of one table, for questions sorted by `_asked`."""
    table = features[0].table
    spec = contract.spec(table)
    if spec.name not in tables:
        raise DataError(
            "table-not-given",
            f"There is no table {spec.name}.",
            where=spec.place,
            why="A feature looks it up.",
            next="Ingest it with `flyball apply`.",
        )
    frame = tables[spec.name]
    _need(frame.collect_schema().names(), set(meaning.columns(spec)), spec.name)
    reads = {*spec.key, *(f.by.table for f in features)}
    for feature in features:
        reads |= set(feature.columns) if isinstance(feature, Latest) else feature.value.columns
    rows = versions(frame.select(*sorted(reads), *meaning.times(spec)).collect(), spec.key)
    points = questions.select("_row", _asked=meaning.micros("_asked"))
    if table is question:
        chains = rows.select(*spec.key, "_chain").unique("_chain")
        mine = questions.select(spec.key).join(chains, on=spec.key, how="left", maintain_order="left")
        points = points.with_columns(_own=mine["_chain"])
    else:
        points = points.with_columns(_own=pl.lit(None, pl.UInt32))
    return [_one(f, points, questions, rows) for f in features]


def _one(feature: Latest | Window, points: pl.DataFrame, questions: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """One feature, with entities as the numbers that joins are fast on."""
    spec, by = contract.spec(feature.table), feature.by
    mine = questions.select(_entity=meaning.comparable(by.question, questions.schema[by.question])).to_series()
    theirs = rows.select(_entity=meaning.comparable(by.table, rows.schema[by.table])).to_series()
    if mine.dtype == pl.String:
        categories = pl.Categorical(pl.Categories.random())
        mine, theirs = mine.cast(categories), theirs.cast(categories)
        mine, theirs = mine.to_physical(), theirs.to_physical()
    points, rows = points.with_columns(_entity=mine), rows.with_columns(_entity=theirs)
    return _window(feature, points, rows) if isinstance(feature, Window) else _latest(feature, points, rows, spec)


def _by(frame: pl.DataFrame, first: str, *then: str | pl.Expr) -> pl.DataFrame:
    """Sorted; as it is where it is sorted already, as a table that is read in the order of its batches often is."""
    return frame if not then and frame[first].is_sorted() else frame.sort(first, *then)


def _before(points: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """For each point the last of its entity's steps strictly before `_at`; both are sorted by `_at`."""
    return points.join_asof(
        steps, on="_at", by="_entity", strategy="backward", allow_exact_matches=False, check_sortedness=False
    )


# --- windows


def _window(window: Window, points: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    known = pl.col("_settled") if window.on_outcome else pl.col("_known")
    counted = rows.select(
        "_entity", "_chain", "_until", _k=known, _enter=pl.max_horizontal("_known", known), _value=meaning.value(window)
    ).drop_nulls(["_entity", "_value"])
    counted = counted.filter(pl.col("_k") < NEVER)
    meaning.fitting(window, counted["_value"])
    plain = (pl.col("_until") == NEVER) & (pl.col("_enter") == pl.col("_k"))
    totals = _running(counted.filter(plain).select("_entity", "_value", _at="_k", _n=pl.lit(1, pl.Int64)))
    ended, own = counted.filter(~plain), _own(points, counted)
    now = _before(points.select("_entity", _at="_asked"), totals)
    outputs = []
    for over in window.over:
        size = meaning.span(over)
        then = _before(points.select("_entity", _at=pl.col("_asked") - size), totals)
        plus, minus = [now], [then]
        if ended.height:
            plus.append(_before(points.select("_entity", _at="_asked"), _running(_events(ended, size))))
        if own.height:
            young = own.filter(pl.col("_asked") - pl.col("_k") <= size)
            minus.append(points.select("_row").join(young, on="_row", how="left", maintain_order="left"))
        outputs.append(_net(plus, minus).select(meaning.finished(window).alias(window.column(over))))
    return pl.concat(outputs, how="horizontal")


def _running(events: pl.DataFrame) -> pl.DataFrame:
    """Running count and total of each entity, sorted by `_at`."""
    return _by(events, "_at").select(
        "_at",
        "_entity",
        _count=pl.col("_n").cum_sum().over("_entity"),
        _total=pl.col("_value").cum_sum().over("_entity"),
    )


def _events(ended: pl.DataFrame, size: int) -> pl.DataFrame:
    """Versions that count in (enter, leave] as two events each."""
    leave = pl.min_horizontal(pl.col("_k") + size, "_until")
    spans = ended.with_columns(_leave=leave).filter(pl.col("_enter") < pl.col("_leave"))
    return pl.concat(
        [
            spans.select("_entity", "_value", _at="_enter", _n=pl.lit(1, pl.Int64)),
            spans.select("_entity", _value=0 - pl.col("_value"), _at="_leave", _n=pl.lit(-1, pl.Int64)),
        ]
    )


def _own(points: pl.DataFrame, counted: pl.DataFrame) -> pl.DataFrame:
    """The version of the question's own row that would count, where one would: at most one for each point."""
    found = points.filter(pl.col("_own").is_not_null()).join(
        counted, left_on=["_own", "_entity"], right_on=["_chain", "_entity"]
    )
    found = found.filter(pl.col("_asked").is_between("_enter", "_until", closed="right"))
    return found.select("_row", "_asked", "_k", _count=pl.lit(1, pl.Int64), _total="_value")


def _net(plus: Sequence[pl.DataFrame], minus: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Count and total of a window from running ones, where none is zero."""
    sums = [[reduce(add, (p[n].fill_null(0) for p in parts)) for n in ("_count", "_total")] for parts in (plus, minus)]
    (count, total), (less, lower) = sums
    return pl.DataFrame({"_count": count - less, "_total": total - lower})


# --- latest


def _latest(latest: Latest, points: pl.DataFrame, rows: pl.DataFrame, spec: Spec) -> pl.DataFrame:
    rows = rows.with_columns(_closed=_closed(rows)).filter(pl.col("_entity").is_not_null())
    # Within one event time and batch only a key can decide, and often the key is just the entity and the event time.
    ties = [] if set(spec.key) <= {latest.by.table, spec.event_time} else spec.key
    batches = [] if rows["_batch"].min() == rows["_batch"].max() else ["_batch"]
    rows = _by(rows, "_known", *batches, *(meaning.comparable(k, rows.schema[k]) for k in ties))
    rows = rows.with_columns(_rank=pl.col("_event").rank("ordinal").cast(pl.Int64) - 1)
    ranked = rows if rows["_rank"].is_sorted() else rows.sort("_rank")
    best = _best(points, rows.filter(~pl.col("_closed")), ranked["_chain"])
    closed = rows.filter("_closed")
    if closed.height:
        best = pl.select(pl.max_horizontal(best, _sweep(points, closed))).to_series()
    found = ranked.select(pl.col("_event", "_settled", *latest.columns).gather(best))
    young, settled = pl.lit(value=True), pl.col("_settled") < points["_asked"]
    if latest.max_age is not None:
        young = points["_asked"] - pl.col("_event") <= meaning.span(latest.max_age)
    return found.select(
        pl.when(young & settled if name in spec.late else young).then(name).alias(f"{latest.name}_{name}")
        for name in latest.columns
    )


def _closed(rows: pl.DataFrame) -> pl.Series:
    """Whether a later version of the same key is of another entity or of an earlier event time.

    Any other version may stay for ever: once it has ended, its successor has the greater rank.
    """
    ended = rows["_until"] < NEVER
    if not ended.any():
        return ended
    moved = pl.col("_entity").shift(-1).ne_missing(pl.col("_entity")) | (pl.col("_event").shift(-1) < pl.col("_event"))
    chains = rows.filter(pl.col("_chain").is_in(rows.filter(ended)["_chain"].implode()))
    chains = chains.sort("_chain", "_known", "_batch").select(
        "_id", "_chain", _moved=((pl.col("_until") < NEVER) & moved.over("_chain")).cast(pl.Int8)
    )
    closed = chains.filter(pl.col("_moved").cum_max(reverse=True).over("_chain") == 1)["_id"]
    return rows["_id"].is_in(closed.implode())


def _best(points: pl.DataFrame, rows: pl.DataFrame, chains: pl.Series) -> pl.Series:
    """The greatest rank that each point sees in versions that stay; of another key than its own.

    Args:
        points: `_asked`, `_entity`, `_own`; sorted by `_asked`.
        rows: `_known`, `_entity`, `_chain`, `_rank`; sorted by `_known`.
        chains: the chain of each rank.
    """
    asked = points.select("_entity", "_own", _at="_asked")
    rank = pl.col("_rank")
    best = rank if rows["_rank"].is_sorted() else rank.cum_max().over("_entity")
    first = _before(asked, rows.select("_entity", _at="_known", _best=best))["_best"]
    itself = (chains.gather(first) == points["_own"]).fill_null(value=False)
    if not itself.any():
        return first
    # The runner-up of another key: whenever two keys meet the lesser loses, and the best loser is it. (Were a better
    # loser of the winner's own key, it would have lost to a third, which is a loser too by now.)
    met = rows.filter(pl.col("_entity").is_in(points.filter(itself)["_entity"].unique().implode())).with_columns(
        _before=rank.cum_max().shift(1).over("_entity")
    )
    low, high = pl.min_horizontal("_rank", "_before"), pl.max_horizontal("_rank", "_before")
    met = met.with_columns(_low=low, _same=pl.lit(chains).gather(low) == pl.lit(chains).gather(high)).with_columns(
        _loser=pl.when(pl.col("_before").is_not_null() & ~pl.col("_same")).then("_low")
    )
    second = met.select("_entity", _at="_known", _best=pl.col("_loser").cum_max().forward_fill().over("_entity"))
    return pl.select(pl.when(itself).then(_before(asked, second)["_best"]).otherwise(first)).to_series()


def _sweep(points: pl.DataFrame, closed: pl.DataFrame) -> pl.Series:
    """The greatest rank that each point sees in closed versions, of another key than its own: time goes by once."""
    entries = closed.select("_known", "_entity", "_rank", "_until", "_chain").rows()
    ours = points.with_row_index("_place").filter(pl.col("_entity").is_in(closed["_entity"].unique().implode()))
    heaps: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    found: list[int | None] = [None] * points.height
    entered = 0
    for place, asked, entity, own in ours.select("_place", "_asked", "_entity", "_own").rows():
        while entered < len(entries) and entries[entered][0] < asked:
            _, of, rank, until, chain = entries[entered]
            heapq.heappush(heaps[of], (-rank, until, chain))
            entered += 1
        found[place] = _top(heaps[entity], asked, own)
    return pl.Series(found, dtype=pl.Int64)


def _top(heap: list[tuple[int, int, int]], asked: int, own: int | None) -> int | None:
    """The best rank in a heap of (-rank, until, chain) that is current and not of the question's own key."""
    while heap and heap[0][1] < asked:
        heapq.heappop(heap)
    if not heap or heap[0][2] != own:
        return -heap[0][0] if heap else None
    mine = heapq.heappop(heap)
    best = _top(heap, asked, None)
    heapq.heappush(heap, mine)
    return best


def _need(given: Sequence[str], wanted: set[str], whose: str) -> None:
    missing = sorted(wanted - set(given))
    if missing:
        raise DataError(
            "column-not-given",
            f"{whose} lack the column {missing[0]!r}."
            if whose == "the questions"
            else f"{whose} lacks {missing[0]!r}.",
            why="The features read it.",
            next="Give observation frames as `Tables.read` yields them, and questions with their request columns.",
        )
