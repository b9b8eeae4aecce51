"""Who may do what: every scope against every key; tokens that nobody sees; and the files in which keys lie."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flyball._kernel.errors import AdapterError, StateError
from flyball.adapters.embedded.tokens import local_token, open_keys
from flyball.adapters.memory.clock import VirtualClock
from flyball.serve import auth, keyring
from flyball.serve.auth import Former, Key, Keys
from flyball.serve.guard import Refused
from flyball.serve.rates import Rate

NOW = datetime(2026, 11, 20, tzinfo=UTC)
CLOCK = VirtualClock(NOW)
TOKENS = {name: f"flyball_{name}-Token" * 5 for name in ("billing", "ada", "nobody", "past", "future")}
KEYS = (
    Key(name="billing", sha256=auth.digest(TOKENS["billing"]), scopes=frozenset({"label"})),
    Key(name="ada", sha256=auth.digest(TOKENS["ada"]), scopes=auth.SCOPES),
    Key(name="nobody", sha256=auth.digest(TOKENS["nobody"]), scopes=frozenset()),
    Key(name="past", sha256=auth.digest(TOKENS["past"]), scopes=auth.SCOPES, expires=NOW),
    Key(
        name="future", sha256=auth.digest(TOKENS["future"]), scopes=auth.SCOPES, expires=NOW + timedelta(microseconds=1)
    ),
)


def keys(free: frozenset[auth.Scope] = auth.ON_LOOPBACK) -> Keys:
    return Keys(lambda: KEYS, CLOCK, free)


def bearer(token: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {token}".encode(), b"host": b"localhost"}


def denied(act: Callable[[], object]) -> tuple[int, str]:
    """Status and code; whatever is raised, no token is in it, and the header says what is missing."""
    with pytest.raises((Refused, StateError)) as raised:
        act()
    error = raised.value.error if isinstance(raised.value, Refused) else raised.value
    told = "".join(traceback.format_exception(raised.value)) + error.why + error.next + repr(error.__context__)
    assert not any(token in told or auth.digest(token) in told for token in TOKENS.values())
    if not isinstance(raised.value, Refused):
        return 0, error.code
    ((name, value),) = raised.value.headers
    assert name == b"www-authenticate"
    assert value.startswith(b'Bearer realm="flyball"')
    return raised.value.status, error.code


@pytest.mark.parametrize("scope", sorted(auth.SCOPES))
def test_every_scope_against_every_key(scope: auth.Scope) -> None:
    """No scope includes another."""
    for key in KEYS:
        for check in (
            lambda k=key: keys().who(bearer(TOKENS[k.name]), scope),  # type: ignore[misc]
            lambda k=key: keys().name_of(TOKENS[k.name], scope),  # type: ignore[misc]
        ):
            if key.name == "past":
                assert denied(check) in ((401, "key-expired"), (0, "key-expired"))
            elif scope in key.scopes:
                assert check() == key.name
            else:
                assert denied(check) in ((403, "scope-missing"), (0, "scope-missing"))


@pytest.mark.parametrize("scope", sorted(auth.SCOPES))
def test_what_is_free(scope: auth.Scope) -> None:
    """Asking and reading on loopback, and nothing elsewhere; a verb of the command line always has a name."""
    if scope in ("predict", "read"):
        assert keys().who({b"host": b"localhost"}, scope) == ""
    else:
        assert denied(lambda: keys().who({}, scope)) == (401, "key-needed")
    assert denied(lambda: keys(frozenset()).who({}, scope)) == (401, "key-needed")
    assert denied(lambda: keys().name_of("", scope)) == (0, "key-needed")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "key-needed"),
        (b"Bearer", "key-needed"),
        (b"Bearer ", "key-needed"),
        (b"Basic YWRhOmFkYQ==", "key-needed"),
        (b"Bearer nonsense", "key-unknown"),
        (b"Bearer \xff\xfe", "key-unknown"),
        (b"Bearer " + b"x" * 100_000, "key-unknown"),
        (f"Bearer {TOKENS['ada']}x".encode(), "key-unknown"),
        (f"Bearer {TOKENS['ada'][:-1]}".encode(), "key-unknown"),
        (f"Bearer {TOKENS['ada'].upper()}".encode(), "key-unknown"),
        (f"Bearer {TOKENS['ada']} {TOKENS['billing']}".encode(), "key-unknown"),
        (f"Bearer {auth.digest(TOKENS['ada'])}".encode(), "key-unknown"),
        (TOKENS["ada"].encode(), "key-needed"),
    ],
)
@pytest.mark.parametrize("scope", ["predict", "label"])
def test_a_key_that_is_sent_must_hold(sent: bytes, code: str, scope: auth.Scope) -> None:
    """Also where none is needed: whoever sends one believes to be known."""
    assert denied(lambda: keys().who({b"authorization": sent}, scope)) == (401, code)


def test_bearer_is_spelt_as_one_likes() -> None:
    for kind in ("bearer", "BEARER", "Bearer "):
        assert keys().who({b"authorization": f"{kind} {TOKENS['billing']} ".encode()}, "label") == "billing"


def test_a_key_expires_at_its_moment() -> None:
    clock = VirtualClock(NOW)
    known = Keys(lambda: KEYS, clock)
    assert known.name_of(TOKENS["future"], "admin") == "future"
    clock.advance(timedelta(microseconds=1))
    assert denied(lambda: known.name_of(TOKENS["future"], "admin")) == (0, "key-expired")


def test_the_challenge_says_what_is_missing() -> None:
    with pytest.raises(Refused) as raised:
        keys().who(bearer(TOKENS["billing"]), "operate")
    assert raised.value.headers == (
        (b"www-authenticate", b'Bearer realm="flyball", error="insufficient_scope", scope="operate"'),
    )


def test_tokens_are_long_and_differ() -> None:
    tokens = {auth.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43 + len("flyball_")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 65},
        {"sha256": "0" * 63},
        {"sha256": "A" * 64},
        {"expires": datetime(2030, 1, 1)},
        {"changed": datetime(2030, 1, 1)},
    ],
)
def test_a_key_is_sound(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"name|sha256|zone"):
        Key(**({"name": "a", "sha256": "0" * 64, "scopes": frozenset()} | wrong))


# --- how often


def asking(known: Callable[[], tuple[Key, ...]], clock: VirtualClock) -> Callable[[str], tuple[int, float]]:
    """Ask with a token: status, and the seconds of Retry-After."""
    checked = Keys(known, clock)

    def ask(token: str, **more: str) -> tuple[int, float]:
        headers = bearer(token) | {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}
        try:
            return (200, 0.0) if checked.who(headers, "label") else (0, 0.0)
        except Refused as caught:
            refused = caught
        assert not token or token not in repr(refused.error) + refused.error.what + refused.error.why
        return refused.status, float(dict(refused.headers).get(b"retry-after", b"0"))

    return ask


def test_a_key_asks_as_often_as_it_may_and_no_other_pays_for_it() -> None:
    clock, rate = VirtualClock(NOW), Rate(per_second=0.5, burst=3)
    slow, other = (
        Key(name=n, sha256=auth.digest(TOKENS[n]), scopes=auth.SCOPES, rate=rate) for n in ("ada", "billing")
    )
    ask = asking(lambda: (slow, other), clock)
    assert [ask(TOKENS["ada"]) for _ in range(5)] == [(200, 0)] * 3 + [(429, 2)] * 2
    assert ask(TOKENS["billing"]) == (200, 0)
    assert ask(TOKENS["ada"], x_forwarded_for="10.9.8.7", forwarded="for=10.9.8.7") == (429, 2), "whoever it says it is"
    clock.advance(timedelta(seconds=2))
    assert [ask(TOKENS["ada"]) for _ in range(2)] == [(200, 0), (429, 2)]


def test_a_new_token_is_no_new_allowance_and_a_new_rate_is() -> None:
    clock, rate = VirtualClock(NOW), Rate(per_second=1, burst=2)
    key = Key(name="ada", sha256=auth.digest(TOKENS["ada"]), scopes=frozenset({"label"}), rate=rate)
    kept = [(key,)]
    ask = asking(lambda: kept[0], clock)
    assert [ask(TOKENS["ada"])[0] for _ in range(3)] == [200, 200, 429]
    former = (Former(sha256=auth.digest(TOKENS["ada"]), until=NOW + timedelta(hours=1)),)
    kept[0] = (Key(name="ada", sha256=auth.digest(TOKENS["billing"]), scopes=key.scopes, rate=rate, former=former),)
    assert [ask(TOKENS[n])[0] for n in ("billing", "ada")] == [429, 429]
    kept[0] = (
        Key(name="ada", sha256=auth.digest(TOKENS["billing"]), scopes=key.scopes, rate=Rate(per_second=9, burst=9)),
    )
    assert [ask(TOKENS[n])[0] for n in ("billing", "ada")] == [200, 401]


def test_what_a_key_may_not_do_is_counted_as_well() -> None:
    key = Key(name="ada", sha256=auth.digest(TOKENS["ada"]), scopes=frozenset(), rate=Rate(per_second=1, burst=2))
    ask = asking(lambda: (key,), VirtualClock(NOW))
    assert [ask(TOKENS["ada"])[0] for _ in range(3)] == [403, 403, 429]


def test_whoever_guesses_is_put_off_and_locks_nobody_out() -> None:
    clock = VirtualClock(NOW)
    ask = asking(lambda: KEYS, clock)
    assert [ask(f"guess-{n}")[0] for n in range(20)] == [401] * 20
    for n in range(100):
        status, wait = ask(f"guess-{n}")
        assert status == 429 and 0 < wait <= 60
        assert ask(TOKENS["billing"]) == (200, 0) and ask(TOKENS["nobody"]) == (403, 0)
    assert ask("") == (401, 0) and ask(TOKENS["past"]) == (401, 0), "no guess, and no answer to one"
    clock.advance(timedelta(seconds=3))
    assert [ask("again")[0] for _ in range(2)] == [401, 429]


def test_the_command_line_is_not_slowed_down() -> None:
    key = Key(
        name="ada", sha256=auth.digest(TOKENS["ada"]), scopes=frozenset({"operate"}), rate=Rate(per_second=1, burst=1)
    )
    known = Keys(lambda: (key,), VirtualClock(NOW))
    assert [known.name_of(TOKENS["ada"], "operate") for _ in range(5)] == ["ada"] * 5


def test_a_former_token_ends_with_its_grace_and_with_its_key() -> None:
    clock, hour = VirtualClock(NOW), timedelta(hours=1)
    former = (Former(sha256=auth.digest(TOKENS["ada"]), until=NOW + hour),)
    key = Key(name="a", sha256=auth.digest(TOKENS["billing"]), scopes=auth.SCOPES, former=former)
    soon = Key(name="a", sha256=key.sha256, scopes=auth.SCOPES, former=former, expires=NOW + hour / 2)
    kept = [(key,)]
    ask = asking(lambda: kept[0], clock)
    assert (ask(TOKENS["ada"])[0], ask(TOKENS["billing"])[0]) == (200, 200)
    clock.advance(hour / 2)
    assert ask(TOKENS["ada"])[0] == 200
    kept[0] = (soon,)
    assert (ask(TOKENS["ada"])[0], ask(TOKENS["billing"])[0]) == (401, 401)
    kept[0] = (key,)
    clock.advance(hour / 2)
    assert (ask(TOKENS["ada"])[0], ask(TOKENS["billing"])[0]) == (401, 200)


def test_a_key_that_is_prolonged_revives_no_former_token() -> None:
    """Found by the state machine: the old token had ended with its key, within its grace."""
    hour, day = timedelta(hours=1), timedelta(days=1)
    first, second, third = (auth.digest(n) for n in "abc")
    kept = (Key(name="ada", sha256=first, scopes=auth.SCOPES),)
    kept = keyring.rotate(kept, "ada", second, NOW, day, NOW + hour)
    kept = keyring.rotate(kept, "ada", third, NOW + 2 * hour, day, NOW + day)
    assert (kept[0].sha256, kept[0].former) == (third, ())


# --- the files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


def test_a_home_gets_a_key_for_its_owner(home: Path) -> None:
    found = open_keys(home, CLOCK)
    token = local_token(home)
    assert all(found.name_of(token, scope) == "local" for scope in auth.SCOPES)
    assert sorted(os.listdir(home)) == ["keys.json", "token"]
    assert mode(home / "keys.json") == mode(home / "token") == 0o600
    assert token not in (home / "keys.json").read_text()
    before = [(home / name).read_bytes() for name in ("keys.json", "token")]
    assert open_keys(home, CLOCK).name_of(token, "admin") == "local"
    assert [(home / name).read_bytes() for name in ("keys.json", "token")] == before


def test_whoever_was_first_both_files_agree(tmp_path: Path) -> None:
    """Processes that open one new home at once."""
    script = (
        "import sys; from pathlib import Path; from flyball.adapters.memory.clock import VirtualClock\n"
        "from flyball.adapters.embedded.tokens import local_token, open_keys\n"
        "sys.stdin.read()\n"
        "for n in range(40):\n"
        "    home = Path(sys.argv[1]) / str(n)\n"
        "    print(open_keys(home, VirtualClock()).name_of(local_token(home), 'admin'), local_token(home))\n"
    )
    for n in range(40):
        (tmp_path / str(n)).mkdir(mode=0o700)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for each in started:
        assert each.stdin is not None
        each.stdin.close()
    said = []
    for each in started:
        with each:
            assert each.stdout is not None
            said.append(each.stdout.read())
        assert each.returncode == 0
    assert said[0] == said[1] == said[2]
    assert said[0].count("local ") == 40
    assert all(sorted(os.listdir(tmp_path / str(n))) == ["keys.json", "token"] for n in range(40))


def test_a_crash_between_the_two_files_is_mended(home: Path) -> None:
    open_keys(home, CLOCK)
    (home / "keys.json").unlink()
    assert open_keys(home, CLOCK).name_of(local_token(home), "admin") == "local"


def test_a_change_counts_at_once(home: Path) -> None:
    """A key that is added, changed, or taken away, in a server that runs."""
    found = open_keys(home, CLOCK)
    token = auth.new_token()
    said = json.loads((home / "keys.json").read_text())
    billing = {"name": "billing", "sha256": auth.digest(token), "scopes": ["label"]}
    assert denied(lambda: found.name_of(token, "label")) == (0, "key-unknown")
    write(home, {"keys": [*said["keys"], billing]})
    assert found.name_of(token, "label") == "billing"
    write(home, {"keys": [*said["keys"], billing | {"scopes": ["read"]}]})
    assert denied(lambda: found.name_of(token, "label")) == (0, "scope-missing")
    write(home, {"keys": [*said["keys"], billing | {"expires": "2026-11-19T00:00:00Z"}]})
    assert denied(lambda: found.name_of(token, "label")) == (0, "key-expired")
    write(home, {"keys": []})
    assert denied(lambda: found.name_of(token, "label")) == (0, "key-unknown")
    assert denied(lambda: found.name_of(local_token(home), "label")) == (0, "key-unknown")


def write(home: Path, said: Any) -> None:
    (home / "keys.json").write_bytes(said if isinstance(said, bytes) else json.dumps(said).encode())


ONE = {"name": "a", "sha256": "0" * 64, "scopes": ["label"]}


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff",
        [],
        {},
        {"keys": [ONE | {"scopes": ["root"]}]},
        {"keys": [ONE | {"scope": ["label"]}]},
        {"keys": [{"name": "a", "token": "secret", "scopes": []}]},
        {"keys": [ONE | {"expires": "2030-01-01T00:00:00"}]},
        {"keys": [ONE, ONE | {"sha256": "1" * 64}]},
        {"keys": [ONE, ONE | {"name": "b"}]},
        {"keys": [ONE | {"former": [{"sha256": "0" * 64, "until": "2030-01-01T00:00:00Z"}]}]},
        {"keys": [ONE | {"former": [{"sha256": "1" * 64, "until": "2030-01-01T00:00:00"}]}]},
        {"keys": [ONE | {"rate": {"per_second": 0, "burst": 1}}]},
        {"keys": [ONE | {"rate": {"per_second": 1, "burst": 0}}]},
    ],
    ids=str,
)
def test_keys_that_cannot_be_understood_let_nobody_in(home: Path, said: Any) -> None:
    found = open_keys(home, CLOCK)
    token = local_token(home)
    write(home, said)
    for act in (
        lambda: open_keys(home, CLOCK),
        lambda: found.name_of(token, "read"),
        lambda: found.who(bearer(token), "read"),
    ):
        with pytest.raises(StateError, match="keys-unusable") as raised:
            act()
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "bits"), list(itertools.product(["keys.json", "token"], [0o640, 0o604, 0o620, 0o602, 0o666]))
)
def test_files_of_others_are_refused(home: Path, name: str, bits: int) -> None:
    open_keys(home, CLOCK)
    (home / name).chmod(bits)
    with pytest.raises(StateError, match="keys-readable-by-others") as raised:
        open_keys(home, CLOCK) if name == "keys.json" else local_token(home)
    assert f"chmod 600 {home / name}" in str(raised.value)


def test_a_file_that_is_opened_to_others_later_lets_nobody_in(home: Path) -> None:
    found = open_keys(home, CLOCK)
    token = local_token(home)
    (home / "keys.json").chmod(0o644)
    with pytest.raises(StateError, match="keys-readable-by-others"):
        found.name_of(token, "read")


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777])
def test_a_home_in_which_others_may_replace_files_is_refused(home: Path, bits: int) -> None:
    open_keys(home, CLOCK)
    home.chmod(bits)
    for act in (lambda: open_keys(home, CLOCK), lambda: local_token(home)):
        with pytest.raises(StateError, match="keys-readable-by-others"):
            act()


def test_a_token_that_is_gone_is_named_and_not_made_anew(home: Path) -> None:
    open_keys(home, CLOCK)
    (home / "token").unlink()
    open_keys(home, CLOCK)
    with pytest.raises(StateError, match="token-missing"):
        local_token(home)


def test_a_home_that_is_none_is_named(home: Path) -> None:
    with pytest.raises(AdapterError, match="keys-unreadable"):
        open_keys(home / "nowhere", CLOCK)
