"""`flyball features` on a project that is trained: who uses what, what it costs and is worth, and what nobody uses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyball import cli
from flyball.cli import say as saying
from flyball.release import version
from tests.oracles import projects

Say = Callable[..., Any]

SHARED = '''returns = Order.returned.col.mean()


@fb.feature(owner="returns team")
def customer_returns():
    """How often this customer has sent things back.

    Some never do.
    """
    return fb.window(Order, returns, by=Order.customer, over=days(120))


weekly = fb.window(Order, returns, by=Order.category, over=days(7))  # nobody uses it
tried = fb.features(Order.price, weekday=Order.placed.col.dt.weekday())  # its price is used, its weekday is not
'''
SECOND = '''@fb.model(
    fb.features(Order.category, customer_returns),
    predicts=Order.returned,
    asked=fb.before(Order.placed, hours(0), tolerance=hours(1)),
)
def short(knobs: Knobs) -> LGBMClassifier:
    """A second model, which shares a feature with the first."""
    return LGBMClassifier(num_leaves=knobs.leaves, n_estimators=10, min_child_samples=50)


'''
CATEGORY = 'category = dy.Enum(["books", "shoes", "garden", "phones"])'


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of two models that share a feature, with some that nobody uses."""
    folder = projects.make(tmp_path_factory.mktemp("features") / "shop")
    app = folder / "app.py"
    projects.edit(app, "returns = Order.returned.col.mean()\n", SHARED)
    projects.edit(
        app,
        "    customer_returns=fb.window(Order, returns, by=Order.customer, over=days(120)),\n",
        "    cents=(Order.price.col * 100).round().cast(int) % 7,\n",
    )
    projects.edit(app, "    Order.category,\n", "    customer_returns,\n    Order.category,\n")
    projects.edit(app, "app = fb.App(", SECOND + "app = fb.App(")
    projects.edit(app, "model=sent_back,", "models=[sent_back, short],")
    projects.edit(app, CATEGORY, CATEGORY[:-1] + ', description="what it is")')
    return folder


@pytest.fixture
def say(shop: Path, capfd: pytest.CaptureFixture[str]) -> Say:
    """Run a verb on the project as it stands on disk; returns its JSON, or its text without `--json`."""

    def verb(*arguments: str, text: bool = False) -> Any:
        for name in [n for n in sys.modules if n == "shop" or n.startswith("shop.")]:
            del sys.modules[name]
        capfd.readouterr()
        code = cli.call([arguments[0], str(shop), *arguments[1:], *(() if text else ("--json",))])
        said = capfd.readouterr()
        assert code == 0, said.err + said.out
        return said.out if text else json.loads(said.out)

    return verb


def lines(found: Any, model: str) -> dict[str, Any]:
    (own,) = (m for m in found["models"] if m["model"] == model)
    return {f["name"]: f for f in own["features"]}


def test_what_was_never_applied_is_told_as_it_is_declared(shop: Path, say: Say) -> None:
    found = say("features")
    assert not (shop / ".flyball").exists()
    own = lines(found, "sent_back")
    assert {n: f["kind"] for n, f in own.items()} == {
        "customer_returns": "window",
        "category": "given",
        "channel": "given",
        "price": "given",
        "hour": "computed",
        "category_returns": "window",
        "cents": "computed",
    }
    shared = own["customer_returns"]
    assert (shared["owner"], shared["reason"].splitlines()[0]) == (
        "returns team",
        "How often this customer has sent things back.",
    )
    assert [(r["column"], r["role"]) for r in shared["reads"]] == [
        ("Order.returned", "value"),
        ("Order.customer", "entity"),
        ("Order.placed", "time"),
        ("Order.settled", "time"),
    ]
    assert [use["model"] for use in shared["used_by"]] == ["sent_back", "short"]
    assert own["category"]["reason"] == "what it is" and own["hour"]["owner"] == ""
    assert [r["column"] for r in own["cents"]["reads"]] == ["Order.price"]
    assert all(f["worth"] is None and f["fresh"] is None for f in own.values())
    assert all(f["cost"]["seconds"] is None and f["cost"]["p50"] is None for f in own.values())
    assert "no version was registered yet" in say("features", text=True)


def test_nobody_uses_what_no_model_of_the_app_reads(say: Say) -> None:
    found = {u["name"]: u for u in say("features", "--no-worth")["unused"]}
    assert set(found) == {"weekly", "weekday"}  # the price of that set is read by a model
    assert (found["weekly"]["kind"], found["weekday"]["kind"]) == ("window", "computed")
    assert "app.py:" in found["weekly"]["where"]


def test_costs_and_worth_of_a_trained_model(say: Say) -> None:
    say("apply")
    found = say("features")
    own = lines(found, "sent_back")
    for name, f in own.items():
        cost = f["cost"]
        assert 0 < cost["seconds"] < 10 and 1000 < cost["questions"] <= 6000, name
        assert 0 < cost["stored"] < 1_000_000 and 0 < cost["p50"] <= cost["p99"] < 1e5, name
        looked_up = f["kind"] == "window"
        assert (cost["online"] is not None) == (f["fresh"] is not None) == looked_up, name
        assert f["used_by"][0] == {
            "model": "sent_back",
            "versions": ["sent_back-1"],
            "champion": "sent_back-1",
            "candidate": "",
        }
    assert own["category_returns"]["cost"]["online"] > 6000 * 40
    fresh = own["customer_returns"]["fresh"]
    assert fresh["batch"] == fresh["of"] == 1 and fresh["known"].startswith("2025-07")
    # Who sends things back is made of category and customer alone; the cents mean nothing.
    assert own["customer_returns"]["tells"] == own["category"]["tells"] == "worth"
    assert own["cents"]["tells"] == "nothing"
    assert own["cents"]["worth"]["low"] <= 0 <= own["cents"]["worth"]["high"]
    assert [u["model"] for u in own["customer_returns"]["used_by"]] == ["sent_back", "short"]
    assert found["series"] == []


def test_the_same_command_says_the_same_worth_again(say: Say) -> None:
    one, two = (
        {n: f["worth"] for n, f in lines(say("features", "--model", "short"), "short").items()} for _ in range(2)
    )
    assert one == two and set(one) == {"category", "customer_returns"}


def test_a_person_reads_it_as_a_table(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saying.out, "width", 400)  # what was measured decides which cells are folded in a narrower one
    text = say("features", "--model", "sent_back", text=True)
    assert "sent_back: sent_back-1 (champion); short: short-1 (champion)" in " ".join(text.split())
    assert "How often this customer has sent things back." in text
    assert "worth nothing that can be told:" in text and "cents" in text
    assert "Nobody uses" in text and "weekday" in text
    assert "worth not told" not in text


def test_what_changed_since_it_was_trained_is_worth_nothing_yet_and_leaves_its_series_unread(
    shop: Path, say: Say
) -> None:
    projects.edit(shop / "app.py", "by=Order.category, over=days(30))", "by=Order.category, over=days(20))")
    found = say("features", "--model", "sent_back")
    own = lines(found, "sent_back")
    changed = own.pop("category_returns")
    assert changed["worth"] is changed["fresh"] is changed["cost"]["stored"] is changed["cost"]["p50"] is None
    assert changed["used_by"] == [{"model": "sent_back", "versions": [], "champion": "", "candidate": ""}]
    assert changed["cost"]["seconds"] > 0
    assert all(f["worth"] is not None for f in own.values())
    (series,) = found["series"]
    assert series["bytes"] > 6000 * 40
    (model,) = found["models"]
    assert model["why"] == "category_returns changed since sent_back-1 was trained"
    text = say("features", "--no-worth", text=True)
    assert "1 series of the online store" in text and "worth not told: not asked for" in text


def test_a_version_that_is_broken_is_told_without_its_worth(say: Say, shop: Path) -> None:
    session = projects.opened(shop)
    (row,) = version.versions(session.facts, "shop", "short")[-1:]
    manifest = version.read("shop", row, session.blobs, session.signer)
    blobs = session.home / "artifacts"
    for digest, why in (
        (manifest.artifacts["encoder.json"], "is not what was stored"),
        (manifest.artifacts["examples"], "There is no artifact"),
        (row.manifest, "can be read"),
    ):
        (file,) = (f for f in blobs.rglob("*") if f.is_file() and f.name in digest and digest.endswith(f.name))
        file.chmod(0o600)
        kept = file.read_bytes()
        file.unlink() if "no artifact" in why else file.write_bytes(b"junk")
        try:
            (model,) = say("features", "--model", "short")["models"]
        finally:
            file.write_bytes(kept)
        assert why in model["why"] and all(f["worth"] is None for f in model["features"])
        assert all(f["cost"]["seconds"] > 0 for f in model["features"])


def test_a_version_whose_examples_were_erased_is_told_without_its_worth(say: Say) -> None:
    before = say("features", "--model", "short", "--no-worth")["models"][0]["version"]
    said = say("erase", "--where", "customer = 'c001'", "--reason", "asked for", "--yes")
    assert said
    (model,) = say("features", "--model", "short")["models"]
    assert model["version"] == before and "erased" in model["why"]
    assert all(f["worth"] is f["cost"]["stored"] is None for f in model["features"])
    assert all(f["cost"]["seconds"] > 0 for f in model["features"])
