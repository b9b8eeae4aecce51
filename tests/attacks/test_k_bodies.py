"""Class K, bodies: too long, too deep, too many, with names twice and numbers without end, in every dialect and for everything
that is posted. Each is refused with a 4xx in bounded words, in bounded time, and leaves nothing behind.
"""

from __future__ import annotations

import json
from time import process_time

import pytest

from tests.attacks.hostile import BODY, bearer, table
from tests.live import Live

DEEP = 100_000
LONG = 900_000


def row(price: bytes = b"8.0", note: bytes = b'""', more: bytes = b"") -> bytes:
    """A question in our own JSON, spelt by hand."""
    whole = {
        "order_id": b'"o1"',
        "placed": b'"2026-11-20T12:00:00Z"',
        "category": b'"books"',
        "price": price,
        "note": note,
    }
    return b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name, value in whole.items()) + more + b"}"


HOSTILE = {
    "lists in lists": b"[" * DEEP + b"]" * DEEP,
    "lists without an end": b"[" * LONG,
    "objects in objects": b'{"inputs":' * DEEP,
    "a deep cell": row(note=b"[" * DEEP + b"]" * DEEP),
    "a deep cell of MLflow": b'{"instances":[{"note":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}]}",
    "a deep tensor": b'{"inputs":[{"name":"price","shape":[1],"datatype":"FP64","data":'
    + b"[" * DEEP
    + b"]" * DEEP
    + b"}]}",
    "a number of a million digits": row(price=b"9" * LONG),
    "a fraction of a million digits": row(price=b"-0." + b"9" * LONG),
    "an exponent": row(price=b"1e99999999999"),
    "an integer of MLflow": b'{"instances":[{"price":' + b"9" * LONG + b"}]}",
    "a tensor of a huge number": b'{"inputs":[{"name":"price","shape":[1],"datatype":"INT64","data":['
    + b"9" * LONG
    + b"]}]}",
    "a tensor of a huge shape": b'{"inputs":[{"name":"price","shape":[999999999999],"datatype":"FP64","data":[1]}]}',
    "a tensor of no shape": b'{"inputs":[{"name":"price","shape":[-1],"datatype":"FP64","data":[1]}]}',
    "a tensor of huge binary data": b'{"inputs":[{"name":"price","shape":[1],"datatype":"FP64",'
    b'"parameters":{"binary_data_size":99999999999}}]}',
    "NaN": row(price=b"NaN"),
    "Infinity": row(price=b"-Infinity"),
    "half a pair of surrogates": row(note=b'"\\ud800"'),
    "no UTF-8": row(note=b'"\xff\xfe"'),
    "an overlong slash": row(note=b'"\xc0\xaf"'),
    "a NUL": b"\0" * 1000,
    "a bare end of line in a text": row(note=b'"a\nb"'),
    "a name that is none": row(more=b',"__proto__":{}'),
    "a name of a megabyte": row(more=b',"' + b"a" * LONG + b'":1'),
    "a hundred thousand names": row(more=b"".join(b',"a%d":1' % at for at in range(DEEP // 2))),
    "UTF-16": BODY.decode().encode("utf-16"),
    "a mark of UTF-8": b"\xef\xbb\xbf" + BODY,
    "YAML with aliases": b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
    "gzip": b"\x1f\x8b\x08" + b"\0" * 100,
}


@pytest.mark.parametrize("body", HOSTILE)
def test_a_hostile_body_is_refused_wherever_it_is_sent(shop: Live, body: str) -> None:
    begun = process_time()  # of the server too, which is a thread of this process
    for path, way in table(shop.server).items():
        if way.methods != ("POST",) or way.scope == "ingest":
            continue
        reply = shop.send("POST", path, HOSTILE[body], {"Content-Type": "application/json", **bearer(way.scope)})
        assert reply.status in (413, 422), (path, reply.status, reply.body[:200])
        assert len(reply.body) < 4000 and b"Traceback" not in reply.body, path
        reply.body.decode()
    assert process_time() - begun < 5


def test_what_is_pushed_is_kept_as_text_or_refused(shop: Live) -> None:
    """Rows are judged later, where they go to quarantine: here only what cannot be kept as lines is refused."""
    for name, body in HOSTILE.items():
        reply = shop.send("POST", "/ingest/clicks", body, {"Content-Type": "application/json", **bearer("ingest")})
        assert reply.status in (202, 422, 503), name
        assert reply.status != 503 or reply.code == "inbox-full"
        assert reply.status != 202 or reply.json["rows"] >= 1


@pytest.mark.parametrize("path", ["/predict", "/invocations", "/v2/models/orders/infer"])
def test_rows_beyond_the_limit_are_not_made(shop: Live, path: str) -> None:
    count = 20_000
    tensor = {"shape": [count], "datatype": "FP64", "data": [1.0] * count}
    body = {
        "/predict": [{}] * count,
        "/invocations": {"dataframe_split": {"columns": ["price"], "data": [[1]] * count}},
        "/v2/models/orders/infer": {"inputs": [{"name": "price", **tensor}]},
    }[path]
    reply = shop.send(
        "POST", path, json.dumps(body).encode(), {"Content-Type": "application/json", **bearer("predict")}
    )
    assert reply.status in (413, 422) and len(reply.body) < 4000


def test_of_a_name_that_is_there_twice_one_value_is_judged_recorded_and_answered(shop: Live) -> None:
    """Each is checked, and the last one counts for everything: none is judged while another is used."""
    headers = {"Content-Type": "application/json", **bearer("predict")}
    assert shop.send("POST", "/predict", row(price=b"-5", more=b',"price":8.0'), headers).status == 422
    assert shop.send("POST", "/predict", row(price=b"8.0", more=b',"price":-5'), headers).status == 422
    reply = shop.send("POST", "/predict", row(price=b"1", more=b',"price":8.0'), headers).json
    found = shop.send("GET", f"/predictions/{reply['id']}", headers=bearer("read")).json
    assert (found["inputs"]["price"], found["features"]["price"], reply["output"]) == (8.0, 8.0, 4.0)
