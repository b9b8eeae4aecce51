"""Rows taken out of online features: as if they had never been, whatever was corrected, late or shared; to the last step."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pytest

from flyball.adapters.embedded.online import SqlOnline
from flyball.adapters.memory.online import MemoryOnline
from flyball.learn.features import batches, declare, notation, online, withdraw
from flyball.learn.features.online import Online
from tests.oracles.histories import Job, at, frame, ticks

FEATURES = notation.features(
    sizes=notation.window(Job, Job.size.col.sum(), by=Job.team, over=[ticks(5), ticks(90)]),
    costs=notation.window(Job, Job.cost.col.sum(), by=Job.team, over=ticks(30)),
    last=notation.latest(Job, by=Job.team, columns=[Job.size]),
)


def history(seed: int) -> list[dict[str, Any]]:
    """Jobs of four teams, some corrected once or twice (to another team, too), some settled, in six batches."""
    chance, rows = random.Random(seed), []
    for n in range(40):
        known = sorted(chance.sample(range(6, 120), chance.choice((1, 1, 2, 3))))
        for tick in known:
            cost = float(chance.randint(0, 4)) if chance.random() < 0.6 else None
            settled = at(tick + chance.randint(0, 9)) if cost is not None else None
            rows.append(
                {
                    "job": f"j{n}",
                    "due": at(tick + 3),
                    "team": chance.choice(["red", "blue", "green", f"only-{n}"]),
                    "size": float(chance.randint(0, 3)),
                    "done": settled,
                    "cost": cost,
                    "_batch": chance.randint(1, 6),
                    "_known": at(tick),
                    "_outcome_known": settled,
                }
            )
    return rows


def filled(store: Online, rows: list[dict[str, Any]]) -> Online:
    """Batch by batch, as an application is."""
    for batch in range(1, 7):
        seen = [row for row in rows if row["_batch"] <= batch]
        batches.update(store, FEATURES, {"Job": frame(Job, seen).lazy()})
    return store


def said(store: Online) -> dict[str, Any]:
    """All that a store answers: every chain, and every total at every moment."""
    found: dict[str, Any] = {name: [store.position(name)] for name in online.names(FEATURES)}
    moments = [int(at(tick).timestamp() * 1_000_000) for tick in range(240)]
    with store.view() as view:
        for feature in FEATURES.features:
            assert isinstance(feature, declare.Latest | declare.Window)
            name = online.name(feature)
            found[name] += [view.chain(name, online.packed([f"j{n}"])) for n in range(40)]
            teams = ["red", "blue", "green", *(f"only-{n}" for n in range(40))]
            found[name] += [
                view.total(name, s, team, m) for s in (0, *_spans(feature)) for team in teams for m in moments[::7]
            ]
    return found


def _spans(feature: declare.Latest | declare.Window) -> list[int]:
    over = feature.over if isinstance(feature, declare.Window) else ()
    return [int(each.total_seconds() * 1_000_000) for each in over]


@pytest.mark.parametrize("seed", range(6))
def test_it_is_as_if_they_had_never_been(seed: int) -> None:
    rows, chance = history(seed), random.Random(-seed)
    gone = chance.sample(range(len(rows)), 12)
    left = [row for n, row in enumerate(rows) if n not in gone]
    keys = pl.DataFrame({"job": sorted({rows[n]["job"] for n in gone})})
    store = filled(MemoryOnline(), rows)
    changes = withdraw.without(store, [FEATURES, FEATURES], Job, frame(Job, left).lazy(), keys)
    assert len(changes) == 3
    store.withdraw(changes, set(online.names(FEATURES)))
    anew = MemoryOnline()
    batches.refill(anew, [FEATURES], Job, frame(Job, left).lazy(), 6)
    assert said(store) == said(anew)
    again = withdraw.without(store, [FEATURES], Job, frame(Job, left).lazy(), keys)
    assert not any(c.versions or c.steps or c.gone or c.spent for c in again), "a second time there is nothing to do"


def test_no_step_and_no_name_is_left(tmp_path: Any) -> None:
    """Of a team that only they were in; and what no declared feature reads is gone whole."""
    rows = history(3)
    teams = {row["team"] for row in rows if row["team"].startswith("only-")}
    left = [row for row in rows if row["team"] not in teams]
    keys = pl.DataFrame({"job": sorted({row["job"] for row in rows if row["team"] in teams})})
    store = SqlOnline(tmp_path / "online.sqlite")
    filled(store, rows)
    other = online.Change("f" * 64, online.NOTHING, 1, [], [online.Step(0, "somebody", 1, 1, 1)])
    store.commit([other])
    held = (tmp_path / "online.sqlite").read_bytes() + (tmp_path / "online.sqlite-wal").read_bytes()
    assert all(name.encode() in held for name in (*teams, "somebody"))
    changes = withdraw.without(store, [FEATURES], Job, frame(Job, left).lazy(), keys)
    store.withdraw(changes, set(online.names(FEATURES)))
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not [name for name in (*teams, "somebody") if name.encode() in held]
    anew = SqlOnline(tmp_path / "anew.sqlite")
    batches.refill(anew, [FEATURES], Job, frame(Job, left).lazy(), 6)
    assert said(store) == said(anew)
    store.close()
    anew.close()
