"""The whole table of how a server may be reached: every address, with and without keys, TLS, a proxy and names."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from flyball._kernel.errors import DeclarationError
from flyball.runtime import exposure
from flyball.runtime.exposure import LOCAL_NAMES, Asked, Settled, settle
from flyball.serve import auth
from flyball.serve.auth import Key

NOW = datetime(2026, 11, 20, tzinfo=UTC)
LOCAL = Key(name="local", sha256="0" * 64, scopes=auth.SCOPES)
GIVEN = Key(name="shop", sha256="1" * 64, scopes=frozenset({"predict"}))
EXPIRED = Key(name="past", sha256="2" * 64, scopes=frozenset({"predict"}), expires=NOW)
NEAR = ("127.0.0.1", "::1", "localhost", "127.8.9.10")
FAR = ("10.0.0.5", "0.0.0.0", "::", "fd00::1", "box.example.org")  # noqa: S104 - asked, not bound
ODD = ("", "127.1", "0", "2130706433", "::ffff:127.0.0.1", "localhost.", "LOCALHOST", "127.0.0.1.example.org", "[::1]")


def found(asked: Asked, *keys: Key) -> Settled | str:
    try:
        return settle(asked, (LOCAL, *keys), NOW)
    except DeclarationError as caught:
        refused = caught
    assert refused.exit_code == 2 and refused.next
    return refused.code


@pytest.mark.parametrize("host", NEAR + FAR)
def test_the_whole_table(host: str) -> None:
    """Written down once more, in other words than the code's."""
    flags = itertools.product([False, True], repeat=4)
    for (needed, tls, plain, named), keys in itertools.product(flags, [(), (GIVEN,), (EXPIRED,)]):
        asked = Asked(host, ("api.example.org",) if named else (), needed, tls, plain)
        exposed = host in FAR or named
        meant = needed or keys == (GIVEN,)
        match (exposed, meant, tls, plain):
            case (_, _, True, True):
                want: Settled | str = "tls-and-plain"
            case (False, _, _, _):
                want = Settled(frozenset() if needed else frozenset({"predict", "read"}), LOCAL_NAMES)
            case (True, False, _, _):
                want = "bind-without-keys"
            case (True, True, False, False) if host in FAR:
                want = "bind-without-tls"
            case _ if host in ("0.0.0.0", "::") and not named:  # noqa: S104 - what is asked, not what is bound
                want = "bind-without-host-name"
            case _:
                own = {"10.0.0.5": "10.0.0.5", "fd00::1": "[fd00::1]", "box.example.org": "box.example.org"}.get(host)
                names = {own, "api.example.org" if named else None} - {None}
                want = Settled(frozenset(), LOCAL_NAMES | names)  # type: ignore[arg-type]
        assert found(asked, *keys) == want, (asked, keys)


@pytest.mark.parametrize("host", ODD)
def test_what_is_spelt_in_an_odd_way_is_taken_for_what_others_reach(host: str) -> None:
    assert found(Asked(host)) == "bind-without-keys"


def test_nothing_that_others_reach_is_ever_free() -> None:
    for host, names in itertools.product(NEAR + FAR + ODD, [(), ("api.example.org",), ("localhost",)]):
        settled = found(Asked(host, names, keys_needed=True, tls=True), GIVEN)
        assert isinstance(settled, str) or settled.free == frozenset()
        open_one = found(Asked(host, names), GIVEN)
        if isinstance(open_one, Settled) and open_one.free:
            assert exposure.on_loopback(host) and open_one.hosts == LOCAL_NAMES


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("API.Example.org", "api.example.org"),
        ("10.1.2.3", "10.1.2.3"),
        ("fd00::1", "[fd00::1]"),
        ("[FD00:0::1]", "[fd00::1]"),
    ],
)
def test_a_name_as_the_host_header_has_it(name: str, host: str) -> None:
    settled = found(Asked(names=(name,)), GIVEN)
    assert isinstance(settled, Settled) and host in settled.hosts


@pytest.mark.parametrize(
    "name",
    [
        "",
        "*",
        "*.example.org",
        "a:80",
        "http://a",
        "a/b",
        "a b",
        "a\r\nb",
        "-a",
        "a.",
        "x" * 254,
        "a" * 64,
        "bücher.de",
        "[a]",
    ],
)
def test_a_name_that_is_none(name: str) -> None:
    assert found(Asked(names=(name,)), GIVEN) == "host-name-unusable"
