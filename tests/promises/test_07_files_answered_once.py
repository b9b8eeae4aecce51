"""A file is answered in pieces: whatever kills the run, it goes on where it was and says the same; no row is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from flyball._kernel.errors import AdapterError, DataError, FlyballError, StateError
from flyball.cycle import parts, predict, questions
from flyball.cycle.predict import BatchAnswered
from flyball.cycle.session import Session, silent
from tests import asked

SIZE = 40


class Killed(BaseException):
    """The process is no more."""


@pytest.fixture(scope="module")
def till(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "LOOKING", SIZE)
        yield asked.trained(tmp_path_factory.mktemp("files"), patch)


def rows(count: int = 150) -> pl.DataFrame:
    frame = pl.DataFrame(asked.orders(count, seed=3))
    return frame.with_columns(placed=pl.col("placed") + timedelta(days=20), items=pl.col("items").cast(pl.Int32))


def run(session: Session, given: Path, out: Path, version: str | None = None) -> BatchAnswered:
    return predict.predict(session, None, given, out, silent, version)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some break the contract, some repeat, some contradict one another, all of them pieces apart."""
    good = rows()
    bad = good.head(3).with_columns(order_id="bad-" + pl.col("order_id"), price=pl.lit(-1.0))
    repeats = good.slice(20, 5)
    clash = good.slice(30, 2).with_columns(price=pl.lit(7.0))
    path = tmp_path_factory.mktemp("given") / "in.parquet"
    pl.concat([good, bad, repeats, clash]).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def whole(till: Session, given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out.parquet"
    said = run(till, given, out)
    assert (said.answered, said.refused, said.repeats, said.version) == (148, 7, 5, "till-1")
    assert said.by_rule == {"price|min": 3, "primary_key": 4}
    return out


def test_pieces_are_answered_as_the_whole_is(
    till: Session, given: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "LOOKING", 1000)
    run(till, given, tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == whole.read_bytes()
    answers = pl.read_parquet(whole)
    kept = rows()["order_id"].to_list()
    assert answers["order_id"].to_list() == [o for o in kept if o not in kept[30:32]], "in the order of the questions"


def test_what_is_refused_is_kept_with_its_rules(given: Path, whole: Path) -> None:
    refused = pl.read_parquet(whole.with_name("out.refused.parquet"))
    assert refused["_file"].unique().to_list() == ["in.parquet"]
    assert refused["_line"].to_list() == [31, 32, 151, 152, 153, 159, 160]
    assert refused["rules"].to_list() == [["primary_key"]] * 2 + [["price|min"]] * 3 + [["primary_key"]] * 2
    assert '"order_id":"bad-o0"' in refused["row"][2]


@contextmanager
def killed_at(step: int, counted: list[str]) -> Iterator[None]:
    """The process dies at its n-th write: before the file is there, or right after."""
    true = parts._aside

    @contextmanager
    def aside(path: Path) -> Iterator[Path]:
        counted.append(path.name)
        if len(counted) * 2 - 1 == step:
            path.with_name(f".{path.name}.part").write_bytes(b"half of i")
            raise Killed
        with true(path) as found:
            yield found
        if len(counted) * 2 == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_aside", aside)
        yield


def judged(patch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the pieces that are done from now on."""
    found: list[int] = []
    true: Callable[..., object] = questions.judge

    def judge(asked: object, piece: questions.Piece, settled: object) -> object:
        found.append(piece.number)
        return true(asked, piece, settled)

    patch.setattr(questions, "judge", judge)
    return found


def test_wherever_it_dies_it_goes_on_and_says_the_same(till: Session, given: Path, whole: Path, tmp_path: Path) -> None:
    for step in range(1, 100, 3):  # a write dies before it, the next after it
        out, writes = tmp_path / f"{step}.parquet", list[str]()
        try:
            with killed_at(step, writes):
                run(till, given, out)
        except Killed:
            pass
        else:
            break
        finished = len(list((tmp_path / f".{out.name}.parts").glob("0*.json")))
        with pytest.MonkeyPatch.context() as patch:
            again = judged(patch)
            said = run(till, given, out)
        assert again == list(range(finished, 4)), "what is finished is not done again"
        assert out.read_bytes() == whole.read_bytes()
        assert (said.answered, said.refused, said.repeats) == (148, 7, 5)
        assert not (tmp_path / f".{out.name}.parts").exists()
    assert step > 20, writes


def test_another_file_or_another_version_begins_anew(till: Session, given: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(Killed), killed_at(15, []):
        run(till, given, out)
    other = tmp_path / "other.parquet"
    rows(50).write_parquet(other)
    with pytest.MonkeyPatch.context() as patch:
        again = judged(patch)
        assert run(till, other, out).answered == 50
    assert again == [0, 1]
    with pytest.raises(StateError, match="no-such-version"):
        run(till, given, out, "till-9")


def test_csv_and_folders_say_the_same(till: Session, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    text = rows().with_columns(pl.col("placed").dt.to_string("iso:strict"))
    text.head(70).write_csv(folder / "a.csv")
    text.slice(70).drop("items").with_columns(items=pl.lit(None, pl.String)).write_csv(folder / "b.csv")
    said = run(till, folder, tmp_path / "out.parquet")
    assert (said.answered, said.refused) == (150, 0)
    mine, theirs = pl.read_parquet(tmp_path / "out.parquet"), pl.read_parquet(whole)
    assert mine.head(30).equals(theirs.head(30))
    assert run(till, tmp_path / "in" / "a.*", tmp_path / "out.parquet").answered == 70


def test_a_file_without_rows_is_answered(till: Session, whole: Path, tmp_path: Path) -> None:
    rows().head(0).write_parquet(tmp_path / "in.parquet")
    assert run(till, tmp_path / "in.parquet", tmp_path / "out.parquet").answered == 0
    assert pl.read_parquet_schema(tmp_path / "out.parquet") == pl.read_parquet_schema(whole)


@pytest.mark.parametrize(
    ("name", "out", "kind", "code"),
    [
        ("nothing.parquet", "out.parquet", DataError, "file-unreadable"),
        ("none-*.csv", "out.parquet", DataError, "file-unreadable"),
        ("few.parquet", "out.parquet", DataError, "column-missing"),
        ("fine.parquet", "fine.parquet", AdapterError, "answers-unwritable"),
        ("fine.parquet", "no/folder.parquet", AdapterError, "answers-unwritable"),
        ("fine.parquet", "out.csv", FlyballError, "answers-are-parquet"),
    ],
)
def test_what_cannot_be_is_said(
    till: Session, tmp_path: Path, name: str, out: str, kind: type[FlyballError], code: str
) -> None:
    rows(5).drop("shop").write_parquet(tmp_path / "few.parquet")
    rows(5).write_parquet(tmp_path / "fine.parquet")
    with pytest.raises(kind) as refused:
        run(till, tmp_path / name, tmp_path / out)
    assert refused.value.code == code
    assert pl.read_parquet(tmp_path / "fine.parquet").height == 5
