"""Objects in a store that speaks S3: the shipped suite against a server on this machine, and the faults of a store."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen
from uuid import uuid4

import obstore
import polars as pl
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from flyball._kernel.errors import AdapterError, DataError, DeclarationError, RetryableError
from flyball.adapters.embedded import formats, objects
from flyball.adapters.embedded.objects import ObjectReader
from flyball.checks.sources import ReaderSuite, Reported
from flyball.data import source
from flyball.data.source import LINE, TEXT, Objects, Reader, Source

READER = ObjectReader()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket; the environment says where it is and who asks."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "who-asks",
        "AWS_SECRET_ACCESS_KEY": "how-it-is-proved",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"b{uuid4().hex}"
    with urlopen(Request(f"{server}/{name}", method="PUT")):  # noqa: S310 - a server of this test
        return name


def put(bucket: str, key: str, content: bytes) -> None:
    obstore.put(S3Store(bucket, client_options={"allow_http": True}), key, content)


def declare(bucket: str, pattern: str) -> Source:
    return source.files(f"s3://{bucket}/{pattern}", prepare=lambda raw: raw, yields=Reported)


def read(declared: Source) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
    (file,) = READER.files(declared)
    with READER.open(declared, file) as reading:
        return reading.rows.collect(), reading.ragged.select(LINE, TEXT).collect().rows()


class TestObjectReader(ReaderSuite):
    @pytest.fixture
    def reader(self, bucket: str) -> Reader:
        put(bucket, "day-2.csv", b"id\nb\nc\n")
        put(bucket, "day-1.csv", b"id\na\nNA\n")
        return READER

    @pytest.fixture
    def change(self, bucket: str) -> Callable[[str], None]:
        return lambda name: put(bucket, name, b"id\nz\n")

    @pytest.fixture
    def declared(self, bucket: str) -> Source:
        return declare(bucket, "day-*.csv")

    @pytest.fixture
    def lost(self, bucket: str) -> Source:
        return declare(bucket, "night-*.csv")


def test_a_star_stands_within_a_folder_and_two_across_folders(bucket: str) -> None:
    keys = ["in/a.csv", "in/x y/é.csv", "in/x/deep/b.csv", "in/x/c.csv", "out/a.csv"]
    for key in keys:
        put(bucket, key, b"id\na\n")

    def found(pattern: str) -> list[str]:
        return [file.name for file in READER.files(declare(bucket, pattern))]

    assert found("in/*.csv") == ["in/a.csv"]
    assert found("in/*/*.csv") == ["in/x y/é.csv", "in/x/c.csv"]
    assert found("in/**/*.csv") == sorted(keys[:4])
    assert found("**/a.csv") == ["in/a.csv", "out/a.csv"]
    assert found("in/x/c.csv") == ["in/x/c.csv"]
    assert read(declare(bucket, "in/x y/é.csv"))[0]["id"].to_list() == ["a"]
    with pytest.raises(DataError, match="source-without-files"):
        found("in/x/none.csv")


def test_more_objects_than_one_answer_names(bucket: str) -> None:
    for n in range(1010):  # behind the server's back, for it is slow
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, f"many/{n:04}.csv", b"id\n")
    assert len(READER.files(declare(bucket, "many/*.csv"))) == 1010


@pytest.mark.parametrize("name", ["x.csv.gz", "x.parquet", "x.tsv"])
def test_formats_are_those_of_files(bucket: str, tmp_path: Path, name: str) -> None:
    if name == "x.parquet":
        pl.DataFrame({"id": ["a"], "n": ["1"]}).write_parquet(tmp_path / name)
        content = (tmp_path / name).read_bytes()
    else:
        content = gzip.compress(b"id,n\na,1\n") if name == "x.csv.gz" else b"id\tn\na\t1\n"
    put(bucket, f"folder/{name}", content)
    rows, ragged = read(declare(bucket, f"folder/{name}"))
    assert rows.select("id", "n").rows() == [("a", "1")]
    assert ragged == []


def test_a_large_object_is_streamed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_CHUNK", 1 << 16)
    put(bucket, "x.csv", b"id\n" + b"a\n" * 300_000)
    rows, _ = read(declare(bucket, "x.csv"))
    assert rows.height == 300_000


def test_the_same_content_written_again_is_the_same_file(bucket: str) -> None:
    put(bucket, "x.csv", b"id\na\n")
    before = READER.files(declare(bucket, "x.csv"))
    put(bucket, "x.csv", b"id\na\n")
    assert READER.files(declare(bucket, "x.csv")) == before == READER.files(declare(bucket, "*.csv"))


def test_an_object_that_went_is_said(bucket: str) -> None:
    put(bucket, "x.csv", b"id\na\n")
    declared = declare(bucket, "x.csv")
    (file,) = READER.files(declared)
    obstore.delete(S3Store(bucket, client_options={"allow_http": True}), "x.csv")
    with pytest.raises(AdapterError) as refused, READER.open(declared, file):
        pass
    assert (refused.value.code, refused.value.where) == ("file-unopenable", declared.place)


def test_a_broken_object_is_named(bucket: str) -> None:
    put(bucket, "x.csv.gz", b"not gzip")
    with pytest.raises(DataError, match=r"x\.csv\.gz") as refused:
        read(declare(bucket, "*.gz"))
    assert refused.value.code == "file-unreadable"


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there_is_said_without_who_asked() -> None:
    with pytest.raises(AdapterError) as refused:
        READER.files(declare("no-such-bucket", "*.csv"))
    assert refused.value.code == "store-refused"
    assert "NoSuchBucket" in refused.value.what
    assert "who-asks" not in str(refused.value) and "how-it-is-proved" not in str(refused.value)


@pytest.mark.usefixtures("bucket")
def test_a_store_that_does_not_answer_may_answer_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    with pytest.raises(RetryableError) as refused:
        READER.files(declare("bucket", "*.csv"))
    assert refused.value.code == "store-unreachable"


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(DeclarationError) as refused:
        READER.files(declare("bucket", "*.csv"))
    assert refused.value.code == "package-not-installed"
    assert refused.value.next == "pip install 'flyball[s3]'"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("s3://who:hunter2@bucket/x.csv", "source-holds-a-secret"),
        ("s3://bucket/x.csv?X-Amz-Signature=hunter2", "source-holds-a-secret"),
        ("gs://bucket/x.csv", "source-of-unknown-store"),
        ("https://example.org/x.csv", "source-of-unknown-store"),
        ("s3://bucket", "source-of-unknown-store"),
        ("s3:///x.csv", "source-of-unknown-store"),
    ],
)
def test_what_is_no_bucket_and_path_is_refused_where_it_stands(url: str, code: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        source.files(url, prepare=lambda raw: raw, yields=Reported)
    assert refused.value.code == code
    assert "hunter2" not in str(refused.value)
    assert refused.value.where is not None and refused.value.where.file == __file__


def test_where_it_is_read_from_is_no_part_of_the_declaration() -> None:
    declared = source.files("s3://bucket/in/day-*.csv", prepare=lambda raw: raw, yields=Reported)
    assert declared.at == Objects("s3://bucket/in/day-*.csv")
    assert declared.name == "day-*.Reported"
    assert formats.at(declared).recipe == source.Files("x.csv").recipe


def test_a_key_that_is_no_path_is_named(bucket: str) -> None:
    with pytest.raises(AdapterError, match=r"no path: 'd//x.csv'") as raised:
        READER.files(declare(bucket, "d//x.csv"))
    assert raised.value.code == "object-key-not-usable"
