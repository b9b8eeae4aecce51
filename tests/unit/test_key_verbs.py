"""`flyball key`, and where tokens never are: not in what a verb says, not in a file, not on a command line, not in an answer.

One real home, on disk. Every token that ever held is kept by the test, and looked for in everything that was written.
"""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from flyball import cli
from flyball._kernel.errors import StateError
from flyball.adapters.embedded import tokens
from flyball.adapters.embedded.clock import SystemClock
from flyball.cli import exposing, opening
from flyball.runtime import Placement, exposure, places, upkeep
from flyball.runtime.upkeep import Upkeep
from flyball.serve import auth
from flyball.serve.guard import Refused
from tests import loops

VERBS = get_command(cli.app)
"""Made of the declarations once, which takes longer than most verbs."""

FAR = ("--host", "0.0.0.0", "--host-name", "api.example.org")  # noqa: S104 - is refused, or handed on


class Home:
    """A home, its verbs, and all tokens that ever were."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capfd, self.monkeypatch = folder, capfd, monkeypatch
        self.session = places.open(loops.APP, Placement(root=folder.parent, home=folder))
        monkeypatch.setattr(opening, "session", lambda *_, **__: self.session)
        monkeypatch.setattr(cli, "app", VERBS)
        self.tokens = [tokens.local_token(folder)]
        self.written = ""

    def run(self, *arguments: str, code: int = 0, secret: bool = False) -> Any:
        """A verb with --json; `secret`: it tells a token, the one time."""
        assert cli.call([*arguments, "--json"]) == code, self.capfd.readouterr()
        said = self.capfd.readouterr()
        found = json.loads(said.out) if said.out else {}
        if secret:
            self.tokens.append(found.pop("token"))
            self.written += json.dumps(found) + said.err
        else:
            self.written += said.out + said.err
        return found

    def as_(self, token: str) -> None:
        self.monkeypatch.setenv("FLYBALL_TOKEN", token)

    def who(self, token: str, scope: auth.Scope) -> str:
        """As a server of another process would say; "" for nobody."""
        try:
            return tokens.open_keys(self.folder, SystemClock()).name_of(token, scope)
        except StateError:
            return ""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Home:
    (tmp_path / "shop" / "home").mkdir(parents=True, mode=0o700)
    monkeypatch.delenv("FLYBALL_TOKEN", raising=False)
    return Home(tmp_path / "shop" / "home", monkeypatch, capfd)


def deeds(home: Home) -> list[tuple[str, str]]:
    return [(d["by"], d["what"]) for d in home.run("audit", "till")["deeds"]]


def test_a_life_of_a_key(home: Home) -> None:
    made = home.run(
        "key", "new", "till", "ada", *("--scope", "admin"), *("--scope", "read"), "--expires", "90d", secret=True
    )
    assert (made["name"], made["scopes"], made["rate"]) == ("ada", ["admin", "read"], None)
    ends = datetime.fromisoformat(made["expires"]) - datetime.now(UTC)
    assert timedelta(days=89) < ends <= timedelta(days=90)
    _, ada = home.tokens
    assert [home.who(ada, s) for s in ("admin", "read", "operate")] == ["ada", "ada", ""]

    home.as_(ada)
    home.run(
        "key", "new", "till", "shop", "--scope", "predict", "--rate", "5/s:9", "--until", "2999-01-01", secret=True
    )
    shop = home.tokens[-1]
    home.run("key", "rotate", "till", "shop", "--grace", "1h", secret=True)
    assert [home.who(t, "predict") for t in (shop, home.tokens[-1])] == ["shop", "shop"]
    leaked = ("--grace", "0s", "--reason", "it leaked", "--rate", "30/min")
    assert home.run("key", "rotate", "till", "shop", *leaked, secret=True)["rate"] == "0.5/s, 1 at once"
    assert [home.who(t, "predict") for t in home.tokens[2:]] == ["", "", "shop"]
    listed = {k["name"]: k for k in home.run("key", "list", "till")["keys"]}
    assert set(listed) == {"local", "ada", "shop"}
    assert (listed["shop"]["rate"], listed["shop"]["expires"]) == ("0.5/s, 1 at once", "2999-01-01T00:00:00Z")
    assert all(k["changed"] and k["holds"] for k in listed.values())
    home.run("key", "revoke", "till", "shop", "--reason", "closed")
    assert home.who(home.tokens[-1], "predict") == ""
    assert deeds(home) == [
        ("ada", "took the key shop away"),
        ("ada", "gave the key shop another token, and the rate 0.5/s, 1 at once"),
        ("ada", "gave the key shop another token"),
        ("ada", "made the key shop: predict"),
        ("local", "made the key ada: admin, read"),
    ]
    hold_no_token(home)


def test_the_token_of_the_owner_is_replaced_where_it_lies(home: Home) -> None:
    said = home.run("key", "rotate", "till", "local", "--grace", "0s")
    assert "token" not in said
    home.tokens.append(tokens.local_token(home.folder))
    old, new = home.tokens
    assert (home.who(old, "admin"), home.who(new, "admin")) == ("", "local") and old != new
    assert (home.folder / "token").stat().st_mode & 0o777 == 0o600
    assert (home.folder / "keys.json").stat().st_mode & 0o777 == 0o600
    assert not list(home.folder.glob(".token-*")) + list(home.folder.glob(".keys.json-*"))
    hold_no_token(home)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("new", "till", "local", "--scope", "read"), "key-name-taken"),
        (("new", "till", "loop", "--scope", "read"), "key-name-taken"),
        (("new", "till", "ada"), 2),
        (("new", "till", "ada", "--scope", "root"), 2),
        (("new", "till", "a b", "--scope", "read"), 2),
        (("new", "till", "ada", "--scope", "read", "--rate", "fast"), 2),
        (("new", "till", "ada", "--scope", "read", "--expires", "soon"), 2),
        (("new", "till", "ada", "--scope", "read", "--expires", "0d"), 2),
        (("new", "till", "ada", "--scope", "read", "--until", "2020-01-01"), 2),
        (("new", "till", "ada", "--scope", "read", "--expires", "9d", "--until", "2999-01-01"), 2),
        (("rotate", "till", "nobody"), "no-such-key"),
        (("rotate", "till", "nobody", "--rate", "9/s"), "no-such-key"),
        (("rotate", "till", "local", "--rate", "fast"), 2),
        (("revoke", "till", "nobody"), "no-such-key"),
        (("revoke", "till", "local"), "last-admin-key"),
    ],
)
def test_what_is_refused_changes_nothing(home: Home, arguments: tuple[str, ...], code: Any) -> None:
    before, head = (home.folder / "keys.json").read_bytes(), home.session.facts.head()
    said = home.run("key", *arguments, code=2 if code == 2 else 1)
    assert said["error"]["code"] == ("usage" if code == 2 else code)
    assert code != 2 or said["error"]["next"] == f"flyball key {arguments[0]} --help"
    assert ((home.folder / "keys.json").read_bytes(), home.session.facts.head()) == (before, head)


@pytest.mark.parametrize("scopes", [set(auth.SCOPES) - {"admin"}, {"operate"}])
def test_only_admin_makes_keys(home: Home, scopes: set[str]) -> None:
    """Else whoever may operate would be whoever they like."""
    home.run("key", "new", "till", "ada", *(p for s in sorted(scopes) for p in ("--scope", s)), secret=True)
    home.as_(home.tokens[-1])
    head = home.session.facts.head()
    for verb in (("new", "till", "eve", "--scope", "admin"), ("rotate", "till", "local"), ("revoke", "till", "ada")):
        assert home.run("key", *verb, code=1)["error"]["code"] == "scope-missing"
    assert home.session.facts.head() == head
    hold_no_token(home)


def test_a_crash_between_the_fact_and_the_file_leaves_no_key_that_nobody_made(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tokens, "store", dies)
        for verb in (("new", "till", "ada", "--scope", "read"), ("rotate", "till", "local", "--grace", "0s")):
            home.run("key", *verb, code=130)
    assert home.who(home.tokens[0], "admin") == "local", "nobody is locked out"
    assert [k["name"] for k in home.run("key", "list", "till")["keys"]] == ["local"]
    assert len(deeds(home)) == 2
    home.run("key", "new", "till", "ada", "--scope", "read", secret=True)


# --- where tokens never are


def hold_no_token(home: Home) -> None:
    """Nothing that was said, and no file but the owner's own, holds a token or the hash of one; keys.json has hashes."""
    secrets = [s.encode() for t in home.tokens for s in (t, auth.digest(t))]
    assert not any(secret in home.written.encode() for secret in secrets)
    looked = 0
    for file in (f for f in home.folder.parent.rglob("*") if f.is_file()):
        content, looked = file.read_bytes(), looked + 1
        for token in home.tokens:
            assert file.name == "token" or token.encode() not in content, file
            assert file.name == "keys.json" or auth.digest(token).encode() not in content, file
    assert looked >= 3


def test_no_verb_writes_the_token_that_it_is_run_with(home: Home) -> None:
    """Every verb that takes one: done, refused, and with a token that is wrong."""
    home.run("key", "new", "till", "ada", "--scope", "operate", "--scope", "admin", secret=True)
    home.run("key", "new", "till", "weak", "--scope", "read", secret=True)
    _, ada, weak = home.tokens
    wrong = auth.new_token()
    home.tokens.append(wrong)
    verbs: list[tuple[str, ...]] = [
        ("promote", "till", "till-1"),
        ("rollback", "till"),
        ("approve", "till", "till-1", "--reason", "good"),
        ("pause", "till", "--reason", "lunch"),
        ("pause", "till", "--resume"),
        ("erase", "till", "--where", "order_id = 'o1'", "--reason", "asked", "--yes"),
        ("data", "retain", "till", "Order", "--older-than", "400d", "--reason", "old", "--yes"),
        ("data", "rollback", "till", "Order", "--to", "0", "--reason", "try"),
        ("data", "replay", "till"),
        ("data", "compact", "till"),
        ("contract", "migrate", "till"),
        ("key", "list", "till"),
        ("audit", "till"),
    ]
    for token in (ada, weak, wrong):
        home.as_(token)
        for n, verb in enumerate(verbs):
            cli.call([*verb, *(["--json"] if (n + len(token)) % 2 else [])])
            said = home.capfd.readouterr()
            home.written += said.out + said.err
            if token != ada and verb[0] not in ("key", "audit"):
                expected = "scope-missing" if token == weak else "key-unknown"
                assert expected in said.out + said.err, (verb, said)
    hold_no_token(home)
    done = {what for by, what in deeds(home) if by == "ada"}
    assert {"paused till", "resumed till", "data replay", "data compact", "contract migrate"} <= done


def test_no_refusal_over_http_holds_the_token(home: Home) -> None:
    known = home.session.keys
    for scope in sorted(auth.SCOPES):
        for token in (*home.tokens, "flyball_" + "y" * 43):
            for _ in range(25):
                try:
                    known.who({b"authorization": f"Bearer {token}".encode()}, scope)
                except Refused as refused:
                    home.written += str(refused.error) + repr(refused) + repr(refused.headers)
    assert "too-many-unknown-keys" in home.written
    hold_no_token(home)


# --- up and serve


def kept_up(home: Home, *arguments: str) -> Upkeep:
    """What `up` would keep up."""
    seen: list[Upkeep] = []

    def up(wanted: Upkeep, stop: threading.Event, ready: Any, say: Any) -> None:
        seen.append(wanted)

    with home.monkeypatch.context() as patched:
        patched.setattr(upkeep, "up", up)
        patched.setattr(opening, "folder", lambda _: home.folder.parent)
        home.run("up", "till", "--home", str(home.folder), *arguments)
    return seen[0]


def test_up_hands_on_how_it_is_reached_and_no_token(home: Home) -> None:
    home.as_(home.tokens[0])
    found = kept_up(home, "--keys", "--plain", *FAR, "--host-name", "b.example.org")
    said = " ".join(found.server)
    assert "--host 0.0.0.0 --keys --plain --host-name api.example.org --host-name b.example.org" in said
    assert "--keys" not in kept_up(home).server
    assert not any(token in " ".join((*found.server, *found.loop)) for token in home.tokens)


@pytest.mark.parametrize("more", [(), ("--keys",), ("--plain",)])
def test_up_refuses_at_once_what_its_servers_would_refuse(home: Home, more: tuple[str, ...]) -> None:
    with home.monkeypatch.context() as patched:
        patched.setattr(opening, "folder", lambda _: home.folder.parent)
        error = home.run("up", "till", "--home", str(home.folder), *FAR, *more, code=2)["error"]
    assert error["code"] == ("bind-without-tls" if more == ("--keys",) else "bind-without-keys")
    home.run("key", "new", "till", "shop", "--scope", "predict", secret=True)
    if more == ("--plain",):
        assert "--plain" in kept_up(home, *FAR, *more).server, "now that somebody has a key"


@pytest.mark.parametrize("verb", ["serve", "up"])
@pytest.mark.parametrize("more", [("--tls-cert", "c"), ("--tls-key", "k"), ("--client-ca", "a")])
def test_half_of_tls_is_wrong_usage(home: Home, verb: str, more: tuple[str, ...]) -> None:
    home.monkeypatch.setattr(opening, "folder", lambda _: home.folder.parent)
    assert home.run(verb, "till", *more, code=2)["error"]["code"] == "usage"


def test_paths_are_handed_on_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = exposing.handed_on(exposure.Asked(), {"--tls-cert": Path("a.pem"), "--tls-key": None})
    assert said == ["--host", "127.0.0.1", "--tls-cert", str(tmp_path / "a.pem")]
