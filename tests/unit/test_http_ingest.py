"""`POST /ingest/<name>`: who may push, what is taken, what is refused, and what is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from flyball._kernel.errors import DataError
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.memory.inbox import MemoryInbox
from flyball.serve import auth, ingest, openapi
from flyball.serve.auth import Key, Keys
from flyball.serve.guard import Limits
from tests.live import Live, live

TOKENS = {"ingest": "flyball_push", "read": "flyball_read"}
KEYS = [
    Key(name=f"the {s}er".replace(" ", "-"), sha256=auth.digest(t), scopes=frozenset({s})) for s, t in TOKENS.items()
]  # type: ignore[arg-type]
INBOX = MemoryInbox(3000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    ground = {"keys": Keys(lambda: KEYS, SystemClock()), "inbox": INBOX, "pushed": frozenset({"clicks"})}
    with live(tmp_path_factory.mktemp("home"), limits=Limits(body=2000), **ground) as found:
        yield found


@pytest.fixture(autouse=True)
def emptied() -> None:
    INBOX.drop("clicks", INBOX.files("clicks"))


def push(server: Live, body: bytes, **headers: str) -> tuple[int, dict[str, object]]:
    told = {"Authorization": f"Bearer {TOKENS['ingest']}", "Content-Type": "application/json"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    answer = server.send("POST", "/ingest/clicks", body, headers=told)
    return answer.status, json.loads(answer.body)


def waiting() -> list[bytes]:
    return [INBOX.read("clicks", file) or b"" for file in INBOX.files("clicks")]


def test_what_is_taken_waits_and_says_who_sent_it(server: Live) -> None:
    assert push(server, b'[{"id": 1},\n {"id":\n 2}]') == (202, {"taken": "accepted", "rows": 2})
    assert waiting() == [b'{"id": 1}\n{"id":  2}\n']
    (file,) = INBOX.files("clicks")
    assert file.name.startswith("the-ingester/")


def test_what_comes_again_is_taken_once(server: Live) -> None:
    assert push(server, b'{"id": 1}')[1]["taken"] == "accepted"
    assert push(server, b'{"id": 1}') == (202, {"taken": "repeated", "rows": 1})
    assert push(server, b'{"id": 1}', Idempotency_Key="a")[1]["taken"] == "accepted"
    assert push(server, b'{"id": 1}', Idempotency_Key="a")[1]["taken"] == "repeated"
    status, said = push(server, b'{"id": 2}', Idempotency_Key="a")
    assert (status, said["error"]["code"]) == (409, "idempotency-key-reused")  # type: ignore[index]
    assert push(server, b'{"id": 2}', Idempotency_Key="x" * 256)[0] == 422


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonl; charset=utf-8", "application/json"])
def test_lines_are_taken_as_they_are(server: Live, kind: str) -> None:
    assert push(server, b'{"id": 1}\nno json\n\n{"id": 2}', Content_Type=kind)[1]["rows"] == 3
    assert waiting() == [b'{"id": 1}\nno json\n\n{"id": 2}\n']


def test_who_may(server: Live) -> None:
    for authorization, status, code in [
        ("", 401, "key-needed"),
        ("Bearer x", 401, "key-unknown"),
        (f"Bearer {TOKENS['read']}", 403, "scope-missing"),
    ]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
        answer = server.send("POST", "/ingest/clicks", b"{}", headers=headers)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
    assert waiting() == []


def test_only_what_is_declared_takes_rows(server: Live) -> None:
    headers = {"Authorization": f"Bearer {TOKENS['ingest']}", "Content-Type": "application/json"}
    for path in ("/ingest/orders", "/ingest/", "/ingest", "/ingest/clicks/", "/ingest/../clicks"):
        assert server.send("POST", path, b"{}", headers=headers).status == 404
    assert server.send("GET", "/ingest/clicks", headers=headers).status == 405


def test_what_is_too_large_or_of_another_kind_is_refused(server: Live) -> None:
    assert push(server, b"x" * 2001)[0] == 413
    assert push(server, b"a=1", Content_Type="application/x-www-form-urlencoded")[0] == 415


def test_a_full_inbox_sends_away(server: Live) -> None:
    assert push(server, b'"%s"' % (b"x" * 1900))[0] == 202
    assert push(server, b'"%s"' % (b"y" * 900))[0] == 202
    headers = {"Authorization": f"Bearer {TOKENS['ingest']}", "Content-Type": "application/json"}
    answer = server.send("POST", "/ingest/clicks", b'"%s"' % (b"z" * 900), headers=headers)
    assert answer.status == 503 and json.loads(answer.body)["error"]["code"] == "inbox-full"
    assert answer.headers["retry-after"] == "1"


def test_it_is_counted(server: Live) -> None:
    before = server.counted("flyball_pushed_rows_total")
    push(server, b'[{"id": 7}, {"id": 8}]')
    assert server.counted("flyball_pushed_rows_total") == before + 2


def test_it_is_described(server: Live) -> None:
    document = openapi.document("shop", {}, ["clicks"])
    assert document["paths"]["/ingest/clicks"]["post"]["responses"].keys() >= {"202", "409", "503"}


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b"\xef\xbb\xbf[1, 2]", b"1\n2\n"),
        (b'{\r\n "a": "\\n"\r\n}', b'{   "a": "\\n"  }\n'),
        (b"[1, 2", b"[1, 2\n"),
        (b'{"a": 1} {"b": 2}', b'{"a": 1} {"b": 2}\n'),
        ('["é"]'.encode(), '"é"\n'.encode()),
    ],
)
def test_bodies_become_lines(body: bytes, rows: bytes) -> None:
    assert ingest.lines(body) == rows


@pytest.mark.parametrize("body", [b"", b" \n", b"[]", b"caf\xe9", b"[" * 100_000])
def test_what_cannot_be_kept(body: bytes) -> None:
    with pytest.raises(DataError, match="push-unreadable"):
        ingest.lines(body)
