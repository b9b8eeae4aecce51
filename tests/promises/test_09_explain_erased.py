"""Promise 9, of explanations: an answer that was erased has none, and whoever was erased is nobody's neighbour."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyball import cli
from flyball._kernel import facts
from flyball._kernel.errors import StateError
from flyball.cycle import answering, apply, erase, explain
from flyball.cycle.explain import Explained
from flyball.cycle.session import Session
from flyball.serve.journal import Settings
from flyball.serve.router import Router
from tests.oracles import projects

WHO = "Quentina-Sentinel"
START = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Orders of one customer, all of an odd price, among those of others."""
    made = projects.make(tmp_path_factory.mktemp("explaining") / "kiosk")
    orders = made / "data" / "orders.csv"
    lines = []
    for n in range(12):
        placed, settled = (START + timedelta(days=5 * n + d) for d in (0, 14))
        lines.append(f"zq{n:05d}x,{placed:%Y-%m-%dT%H:%M:%SZ},shoes,web,777.5,{WHO},{settled:%Y-%m-%dT%H:%M:%SZ},true")
    orders.write_text(orders.read_text().rstrip() + "\n" + "\n".join(lines) + "\n")
    return made


@pytest.fixture(scope="module")
def session(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    opened = projects.opened(project, tmp_path_factory.mktemp("explained") / "home")
    apply.apply(opened)
    return opened


@pytest.fixture(scope="module")
def answered(session: Session) -> list[str]:
    """Their question, and another's."""
    recorder = session.journals(Settings()).open(session.app.name, head=session.facts.head)
    router = Router(session.clock)
    router.swap(answering.routed(session))
    way, found = router.ways["sent_back"], []
    for order, customer in (("new-1", WHO), ("new-2", "c002")):
        row = {
            "order_id": order,
            "placed": "2025-07-01T10:00:00Z",
            "category": "shoes",
            "channel": "web",
            "price": 777.0,
        }
        (decoded,), _ = way.routed.champion.decode(msgspec.json.encode({**row, "customer": customer}))
        answer = router.ask(way, [decoded], decoded["placed"], 0.0)[0].answer
        recorder.record([answer])
        found.append(answer.id)
    recorder.close()
    return found


def summed(found: Explained) -> float:
    return found.base + sum(part.contribution for part in found.parts)


def test_an_answer_is_explained_and_then_erased(session: Session, answered: list[str], project: Path) -> None:
    theirs, other = answered
    found = explain.explain(session, theirs)
    assert (found.version, found.method, found.unit, found.why) == ("sent_back-1", "tree", "log-odds", ())
    assert found.output is not None and 1 / (1 + 2.718281828459045**-found.score) == pytest.approx(
        found.output, abs=1e-6
    )
    assert summed(found) == pytest.approx(found.score, abs=1e-12)
    assert {p.feature for p in found.parts} == {f.name for f in session.app.model(None).features.features}
    assert any(near.key["order_id"].startswith("zq") for near in found.nearest), found.nearest
    assert all(near.outcome is None for near in found.nearest), "neighbours are told by key, never by value"
    shown = explain.explain(session, theirs, nearest=30, reveal=True).nearest
    assert {near.outcome for near in shown if near.key["order_id"].startswith("zq")} == {True}
    assert WHO not in facts.encode(found).decode()
    whole = explain.of_version(session, "sent_back-1")
    assert whole.features and [r.name for r in whole.rivals] == ["linear", "baseline"]

    erase.erase(session, f"customer = '{WHO}'", by="ada", reason="ticket 7")
    with pytest.raises(StateError, match="no-such-prediction") as gone:
        explain.explain(session, theirs)
    assert "erasure" in gone.value.why
    left = explain.explain(session, other)
    assert left.nearest == () and "erased" in left.why[0] and left.parts
    assert "zq0" not in facts.encode(left).decode()


def test_the_verb_says_it(session: Session, answered: list[str], project: Path, tmp_path: Path, capfd: Any) -> None:
    arguments = [str(project), "--home", str(session.home), "--json"]
    assert cli.call(["explain", arguments[0], answered[1], *arguments[1:]]) == 0
    assert json.loads(capfd.readouterr().out)["parts"]
    assert cli.call(["explain", *arguments]) == 2
    assert cli.call(["explain", arguments[0], "no-such", *arguments[1:]]) == 1
