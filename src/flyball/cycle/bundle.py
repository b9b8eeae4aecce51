"""A bundle: one version as a zip that answers anywhere, with what `flyball.edge` needs and no more.

    manifest.json, signature    the SHA-256 of every other file, and our signature over it
    bundle.json                 columns and limits of a request, features, encoder, what follows a score, golden answers
    *.onnx                      the model
    flyball_edge/, __main__.py  the code that answers: `flyball.edge`, word for word

What a feature takes or computes from a request is data where that has the server's bits; what it looks up or calls is handed
over by whoever asks. Golden rows are made up, so that nobody's data leaves; the same version makes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from flyball._kernel.errors import AdapterError, StateError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import answering, artifacts, causes, chosen, predict
from flyball.cycle.described import described, unchecked
from flyball.cycle.session import Session
from flyball.cycle.zipped import zipped
from flyball.data import contract
from flyball.data.contract import Personal, Spec
from flyball.edge import Edge, Refused, load
from flyball.edge.model import FORMAT
from flyball.learn.encoding import encode
from flyball.learn.encoding.encode import Encoder
from flyball.learn.export import doubled, graph, parity, predictor, several
from flyball.learn.features import offline, portable
from flyball.learn.features.declare import Computed, Given, Text
from flyball.learn.model import Model
from flyball.release.version import Manifest

GOLDEN = 32
"""Rows that a bundle is made with."""
_SEED = 1788
_FROM = datetime(2026, 1, 1, tzinfo=UTC)
_MAIN = b'''"""This bundle, run; see flyball_edge."""

import sys

from flyball_edge.__main__ import main

sys.exit(main(sys.argv[0]))
'''


class Bundled(Said, frozen=True, kw_only=True, tag="release.bundled"):
    """A version was written as a bundle.

    Attributes:
        bundle: the SHA-256 of its bytes.
        handed: features that whoever asks hands over, with their types.
        unchecked: rules of the contract that are not checked there.
        within: how far its answers lie from the server's, at most, relative to 1; 0: not at all.
    """

    version: str
    bundle: str
    handed: dict[str, str]
    unchecked: list[str]
    within: float


def bundle(session: Session, name: str | None, version: str | None, out: Path, *, reveal: bool = False) -> Bundled:
    """Write a version as a bundle.

    Args:
        version: by default who answers now.
        reveal: also where the encoder holds values of personal columns.

    Raises:
        StateError: `nothing-released`, `no-such-version`, `features-changed`, `task-changed`; `bundle-needs-onnx`;
            `bundle-names-persons`; `bundle-answers-otherwise`.
        AdapterError: `bundle-unwritable`.
    """
    model = session.app.model(name)
    manifest = chosen.chosen(session, model, version)
    causes.same_features(model, manifest.version, manifest.causes["examples"], manifest.commit)
    encoder = artifacts.load_encoder(session, manifest)
    if not reveal:
        refuse_persons(model, encoder)
    made, graphs, within = _predictor(session, manifest)
    says = _says(session, model, manifest, encoder) | {"predictor": made, "within": within}
    says["golden"] = _golden(session, model, manifest, encoder, says)
    try:
        edge = Edge(json.loads(_canonical(says)), graphs)
        edge.selfcheck()
    except Refused as error:
        raise StateError(
            "bundle-answers-otherwise",
            f"A bundle of {manifest.version} would not answer as the server does.",
            why=str(error)[:400],
            next="Serve it with flyball; and report it.",
        ) from error
    data = _zipped(session, manifest, _canonical(says), graphs)
    _write(out, data)
    said = Bundled(
        version=manifest.version,
        bundle=hashlib.sha256(data).hexdigest(),
        handed=edge.handed,
        unchecked=edge.unchecked,
        within=within,
    )
    session.facts.append([Fact(session.app.name, model.name, said)])
    return said


def verify(session: Session, path: Path) -> Edge:
    """A bundle that the key in use signed, and that answers as it did where it was made.

    Raises:
        StateError: `signature-broken`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            data, signature = archive.read("manifest.json"), archive.read("signature").decode("ascii")
        if session.signer.verify(_covered(data), signature):
            return load(str(path))
        why = "The key in use did not sign its manifest."
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        why = f"{type(error).__name__}: {error}"[:400]
    raise StateError(
        "signature-broken",
        f"{path} is not a bundle that was made here.",
        why=why,
        next="Use the key that signed it (FLYBALL_KEY), or make the bundle anew: flyball bundle.",
    )


def _says(session: Session, model: Model, manifest: Manifest, encoder: Encoder) -> dict[str, Any]:
    """All that is said of a version but how its scores are made."""
    finish = artifacts.load_finish(session, manifest)
    return {
        "format": FORMAT,
        "app": manifest.app,
        "model": model.name,
        "version": manifest.version,
        "columns": described(model, {finish.by} - {""}),
        "unchecked": unchecked(model),
        "features": list(_features(model, contract.spec(model.question), encoder)),
        "encoder": msgspec.to_builtins(encoder),
        "finish": msgspec.to_builtins(finish),
        "task": msgspec.to_builtins(answering.task_of(session, model, manifest)),
        "golden": [],
    }


def refuse_persons(model: Model, encoder: Encoder) -> None:
    """Refuse an encoder that holds values of personal columns, where it would leave flyball.

    Raises:
        StateError: `bundle-names-persons`.
    """
    spec = contract.spec(model.question)
    personal, known = set(spec.with_role(Personal)), {c.name for c in encoder.columns if c.vocabulary}
    for feature in model.features.features:
        reads = {feature.name} if isinstance(feature, Given) else set()
        if isinstance(feature, Computed):
            reads = set(feature.expression.columns)
        if feature.name in known and reads & personal:
            raise StateError(
                "bundle-names-persons",
                f"The encoder holds the values of {', '.join(sorted(reads & personal))} that training saw.",
                where=feature.place,
                why="The contract declares them personal. A file that leaves flyball is out of reach of an erasure.",
                next="Add --reveal, if whoever gets the bundle may see them; or train without that feature.",
            )


def _predictor(session: Session, manifest: Manifest) -> tuple[dict[str, Any], dict[str, bytes], float]:
    """How a score is made, the graphs for it, and how far it lies from the server's."""
    native = predictor.ARTIFACTS["lightgbm"]
    parts: list[dict[str, Any]] = []
    graphs: dict[str, bytes] = {}
    if manifest.predictor == "lightgbm":
        data = session.blobs.get(manifest.artifacts[native])
        raws = doubled.raws(data) if doubled.load(data) is not None else None
        if raws is not None:
            for n, raw in enumerate(raws):
                graphs[f"model-{n}.onnx"] = raw.model
                parts.append({"model": f"model-{n}.onnx", "output": "score", "link": raw.link, "scale": raw.scale})
            places = several.parts(data)[1]
            return {"parts": parts, "places": places, "width": _width(session, manifest)}, graphs, 0.0
    if predictor.ARTIFACTS["onnx"] not in manifest.artifacts:
        raise StateError(
            "bundle-needs-onnx",
            f"{manifest.version} has no ONNX model.",
            why="It answers by code, or its export did not say what the estimator says; a bundle runs ONNX alone.",
            next="Serve it with flyball, or train an estimator that exports (docs/reference/estimators.md).",
        )
    data = session.blobs.get(manifest.artifacts[predictor.ARTIFACTS["onnx"]])
    pieces, places = several.parts(data)
    for n, piece in enumerate(pieces):
        graphs[f"model-{n}.onnx"] = graph.check(piece)[0]
        parts.append({"model": f"model-{n}.onnx", "output": graph.OUTPUT, "link": "identity", "scale": 1.0})
    within = 0.0 if manifest.predictor == "onnx" else parity.TOLERANCE
    return {"parts": parts, "places": places, "width": _width(session, manifest)}, graphs, within


def _width(session: Session, manifest: Manifest) -> int:
    return artifacts.load_trained_for(session, manifest).width


def _features(model: Model, spec: Spec, encoder: Encoder) -> Iterator[dict[str, Any]]:
    """Each column that the encoder reads, in its order: taken, computed, or handed over."""
    plain = {c["name"] for c in described(model, set()) if c["type"] != "any"} - set(spec.sealed)
    schema = {name: dtype for name, dtype in spec.dtypes.items() if name in plain}
    known: dict[str, list[Any]] = {}
    for feature in model.features.features:
        data: list[Any] | None = None
        if isinstance(feature, Given) and feature.name in plain:
            data = ["column", feature.name]
        elif isinstance(feature, Computed) and feature.expression.columns <= plain:
            data = portable.of(feature.expression.polars, schema)
        if data is not None:
            known[feature.name] = data
    for column in encoder.columns:
        if column.name in known:
            yield {"name": column.name, "how": "computed", "expression": known[column.name]}
        else:
            yield {"name": column.name, "how": "handed", "type": "text" if column.reads == "prose" else column.reads}


def _golden(
    session: Session, model: Model, manifest: Manifest, encoder: Encoder, says: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Made-up rows, and what the server's own predictor answers to the features that Polars makes of them."""
    chance = random.Random(_SEED)  # noqa: S311 - repeatable is what it must be
    words = _words(model, encoder, chance)
    rows = [{c["name"]: _cell(c, words, chance) for c in says["columns"]} for _ in range(GOLDEN)]
    handed = {f["name"] for f in says["features"] if f["how"] == "handed"}
    columns = {c.name: c for c in encoder.columns}
    given = [{name: _handed(columns[name], chance) for name in sorted(handed)} for _ in rows]
    spec = contract.spec(model.question)
    typed = {name: dtype for name, dtype in spec.dtypes.items() if name in rows[0]}
    frame = pl.DataFrame(rows, schema=typed, orient="row")
    known = [each for each in offline.requested(_only(model, handed), frame) if each.width]
    made = pl.concat(known, how="horizontal") if known else pl.DataFrame()
    row = encode.compile_row(encoder)
    answerer = artifacts.load_predictor(session, manifest)
    answers = []
    for n, own in enumerate(given):
        values = {**(made.row(n, named=True) if known else {}), **own}
        answers.append(answerer.row(row([values[name] for name in encoder.names])))
    task, finish = answering.task_of(session, model, manifest), artifacts.load_finish(session, manifest)
    told = predict.told(np.array(answers, dtype=np.float64), frame, task, finish)
    return [
        {"row": _said(each, says["columns"]), "features": own, "answer": _answer({s.name: s[n] for s in told})}
        for n, (each, own) in enumerate(zip(rows, given, strict=True))
    ]


def _words(model: Model, encoder: Encoder, chance: random.Random) -> dict[str, list[str]]:
    """What may stand in the columns that are texts: values that are known, or some of the terms that a feature reads there."""
    known = {c.name: [str(v) for v in c.vocabulary] for c in encoder.columns if c.reads in ("text", "prose")}
    for feature in model.features.features:
        if isinstance(feature, Text) and (terms := known.get(feature.name)):
            phrases = [" ".join(chance.choices(terms, k=chance.randint(1, 4))) for _ in range(GOLDEN)]
            known |= {name: phrases for name in feature.expression.columns if name not in known}
    return known


def _only(model: Model, handed: set[str]) -> Any:
    """The features that a bundle computes itself."""
    kept = tuple(f for f in model.features.features if isinstance(f, Given | Computed) and f.name not in handed)
    return type(model.features)(kept, model.features.place)


def _cell(column: Mapping[str, Any], words: Mapping[str, Sequence[str]], chance: random.Random) -> Any:
    if (column["nullable"] or not column["required"]) and chance.random() < 0.15:
        return None
    limits, name = column["limits"], column["name"]
    low, high = limits.get("min", limits.get("min_exclusive")), limits.get("max", limits.get("max_exclusive"))
    match column["type"]:
        case "bool":
            return chance.random() < 0.5
        case "int":
            bottom = max(low if low is not None else 0, -1000)
            return chance.randint(int(bottom), int(min(high if high is not None else bottom + 1000, bottom + 1000)))
        case "float" | "float32":
            start = float(low if low is not None else -1000.0 if high is None else high - 1000)
            value = chance.uniform(start, float(high) if high is not None else start + 2000)
            return value if column["type"] == "float" else float(np.float32(value))
        case "text":
            least, most = limits.get("min_bytes", 1), limits.get("max_bytes", 1000)
            found = chance.choice(column.get("values") or words.get(name) or [""])
            return found if least <= len(found.encode()) <= most else "a" * max(1, least)
        case "moment":
            return _FROM + timedelta(microseconds=chance.randrange(4 * 365 * 86_400_000_000))
        case "day":
            return (_FROM + timedelta(days=chance.randrange(4 * 365))).date()
    return None


def _handed(column: Any, chance: random.Random) -> Any:
    if chance.random() < 0.2:
        return None
    if column.reads == "number":
        return chance.choice([chance.gauss(0, 1), chance.gauss(0, 100), float(chance.randrange(10))])
    unseen: Any = -1 if column.reads == "integer" else "never seen"
    return chance.choice([*column.vocabulary, unseen])


def _said(row: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row as JSON says it, without the columns that may be left out and not be null."""
    found = dict[str, Any]()
    for column in columns:
        name, value = column["name"], row[column["name"]]
        if value is not None or column["nullable"]:
            found[name] = value.isoformat() if hasattr(value, "isoformat") else value
        elif column["required"]:
            found[name] = ""  # of a type that no bundle reads
    return found


def _answer(told: Mapping[str, Any]) -> dict[str, Any]:
    found = {"output": told["_output"]}
    if "_decision" in told:
        found["decision"] = told["_decision"]
    for prefix, name in (("_p_", "probabilities"), ("_q_", "quantiles")):
        several_ = {column[3:]: value for column, value in told.items() if column.startswith(prefix)}
        if several_:
            found[name] = several_
    return found


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _zipped(session: Session, manifest: Manifest, says: bytes, graphs: Mapping[str, bytes]) -> bytes:
    """The bytes of the zip, with what it is signed by."""
    files = {"__main__.py": _MAIN, "bundle.json": says, **graphs}
    for entry in resources.files("flyball.edge").iterdir():
        if entry.name.endswith(".py"):
            files[f"flyball_edge/{entry.name}"] = entry.read_bytes()
    listed = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    described_ = {
        "format": FORMAT,
        "version": manifest.version,
        "needs": {"python": ">=3.10", "numpy": "*", "onnxruntime": ">=1.20"},
        "files": listed,
    }
    signed = _canonical(described_)
    files |= {"manifest.json": signed, "signature": session.signer.sign(_covered(signed)).encode()}
    return zipped(files)


def _covered(manifest: bytes) -> bytes:
    return b"flyball/bundle/1:" + manifest


def _write(out: Path, data: bytes) -> None:
    aside = out.with_name(f".{out.name}.part")
    try:
        aside.write_bytes(data)
        aside.replace(out)
    except OSError as error:
        raise AdapterError(
            "bundle-unwritable",
            f"The bundle cannot be written to {out}.",
            why=str(error),
            next="Name a file in a folder that exists and is yours.",
        ) from error
