"""A bundle: read, verified, and asked.

Every file of it has the SHA-256 that its manifest says, or it is not used. Who signed the manifest is for `flyball bundle
--verify` to say: Python alone knows no Ed25519. The last step of a score is taken by the C library's functions, as on the
server; where another library rounds otherwise, `selfcheck` tells by how much.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from .encoding import encoder
from .expression import compiled
from .refused import Refused
from .request import reader

FORMAT = 1
CLOSE = 1e-12
"""How far an answer may lie from the server's where another C library rounds otherwise."""


LARGEST = 2**30
"""Bytes of all files of a bundle, unpacked."""


class Edge:
    """One version, ready to answer. Safe to share by threads.

    Attributes:
        model, version: whose answers these are.
        handed: features that the caller hands over, since they look at tables or run code -> what they are.
        unchecked: rules of the contract that are not checked here.
    """

    def __init__(self, says: Mapping[str, Any], graphs: Mapping[str, bytes]) -> None:
        if says["format"] != FORMAT:
            raise Refused(f"The bundle has format {says['format']}, and this code reads {FORMAT}.")
        self.model, self.version = says["model"], says["version"]
        self.handed: dict[str, str] = {f["name"]: f["type"] for f in says["features"] if f["how"] == "handed"}
        self.unchecked: list[str] = says["unchecked"]
        self._golden, self._within = says["golden"], max(says["within"], CLOSE)
        self._read = reader(says["columns"])
        self._features = [_feature(each) for each in says["features"]]
        self._encode = encoder(says["encoder"]["columns"])
        self._score = _scorer(says["predictor"], graphs)
        self._finish, self._task = says["finish"], says["task"]

    def predict(self, row: Mapping[str, Any], features: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Answer one question.

        Args:
            row: by column, as a request of the server.
            features: the values of `handed`; one that is left out is missing.

        Returns:
            `output`; `decision`, `probabilities` and `quantiles` where the model has them.

        Raises:
            Refused: the row breaks the contract, or a feature that nobody declared is handed over.
        """
        given = features or {}
        foreign = sorted(set(given) - set(self.handed))
        if foreign:
            raise Refused(f"{foreign[0]!r} is no feature that is handed over.")
        cells = self._read(row)
        score = self._score(self._encode([value(cells, given) for value in self._features]))
        return self._told(_finished(self._finish, score), cells)

    def selfcheck(self) -> dict[str, Any]:
        """Ask again what the bundle was made with: `rows`, `exact`, and how far the `farthest` answer lies from the server's.

        Raises:
            Refused: an answer is another one.
        """
        farthest = 0.0
        for each in self._golden:
            found, wanted = self.predict(each["row"], each["features"]), each["answer"]
            pairs = list(zip(_numbers(found), _numbers(wanted), strict=True))
            apart = max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
            if not apart <= self._within or (not apart and found != wanted):
                raise Refused(f"{self.version} answers {found} here, and answered {wanted} where it was made.")
            farthest = max(farthest, apart)
        return {"rows": len(self._golden), "exact": farthest == 0, "farthest": farthest}

    def _told(self, answer: list[float], cells: Mapping[str, Any]) -> dict[str, Any]:
        classes, quantiles = self._task["classes"], self._task["quantiles"]
        if classes:
            most = max(answer)
            decided = classes[answer.index(most)]
            return {"output": most, "decision": decided, "probabilities": dict(zip(classes, answer, strict=True))}
        if quantiles:
            middle = min(range(len(quantiles)), key=lambda n: abs(quantiles[n] - 0.5))
            return {"output": answer[middle], "quantiles": dict(zip(map(str, quantiles), answer, strict=True))}
        threshold = self._finish.get("threshold")
        if threshold is None:
            return {"output": answer[0]}
        by = self._finish.get("by", "")
        if by:
            value = cells.get(by)
            threshold = self._finish["thresholds"].get("" if value is None else str(value), threshold)
        return {"output": answer[0], "decision": answer[0] >= threshold}


def load(path: str) -> Edge:
    """The version in a bundle, after a look at every file and at the answers that it was made with.

    Raises:
        Refused: it is not what was made.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(each.file_size for each in archive.infolist()) > LARGEST:
                raise Refused(f"{path} would unpack to more than {LARGEST:,} bytes.")
            manifest = json.loads(archive.read("manifest.json"))
            files = {name: archive.read(name) for name in manifest["files"]}
            foreign = set(archive.namelist()) - {*files, "manifest.json", "signature"}
    except Refused:
        raise
    except (OSError, KeyError, TypeError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise Refused(f"{path} is no bundle: {type(error).__name__}") from error
    changed = [n for n, data in files.items() if hashlib.sha256(data).hexdigest() != manifest["files"][n]]
    if changed or foreign:
        raise Refused(f"{path} is not what was made: {', '.join(sorted({*changed, *foreign}))[:200]}")
    graphs = {name: data for name, data in files.items() if name.endswith(".onnx")}
    try:
        edge = Edge(json.loads(files["bundle.json"]), graphs)
    except Refused:
        raise
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise Refused(f"{path} is not what was made: {type(error).__name__}") from error
    edge.selfcheck()
    return edge


def _feature(says: Mapping[str, Any]) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Any]:
    name = says["name"]
    if says["how"] == "handed":
        return lambda cells, given: given.get(name)
    run = compiled(says["expression"])
    return lambda cells, given: run(cells)


def _scorer(says: Mapping[str, Any], graphs: Mapping[str, bytes]) -> Callable[[Any], list[float]]:
    """float32 (1, columns) -> the numbers of an answer, before what follows."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    parts = []
    for part in says["parts"]:
        session = onnxruntime.InferenceSession(graphs[part["model"]], options, providers=["CPUExecutionProvider"])
        parts.append((session, part["output"], part["link"], part["scale"]))
    places, width = says["places"], says["width"]

    def score(matrix: Any) -> list[float]:
        found: list[float] = []
        for session, output, link, scale in parts:
            numbers = np.asarray(session.run([output], {"x": matrix})[0], dtype=np.float64).ravel().tolist()
            found += _linked(link, scale, numbers)
        if not places:
            return found
        if len(found) == 1 and len(places) == 2:
            found.insert(0, 1.0 - found[0])
        answer = [0.0] * width
        for place, number in zip(places, found, strict=True):
            answer[place] = number
        return answer

    return score


def _linked(link: str, scale: float, scores: list[float]) -> list[float]:
    if link == "softmax":
        most = max(scores)
        found = [math.exp(score - most) for score in scores]
        total = 0.0
        for each in found:  # one after the other, as the server's library adds
            total += each
        return [each / total for each in found]
    if link == "exp":
        return [_exp(score) for score in scores]
    return [1.0 / (1.0 + _exp(-scale * score)) for score in scores] if link == "sigmoid" else scores


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _finished(says: Mapping[str, Any], answer: list[float]) -> list[float]:
    if says.get("ascending"):
        return sorted(answer)
    calibration = says.get("calibration")
    return answer if calibration is None else [_calibrated(calibration, answer[0])]


def _calibrated(says: Mapping[str, Any], score: float) -> float:
    if says["type"] == "sigmoid":
        p = min(max(score, 1e-15), 1 - 1e-15)
        z = says["slope"] * (math.log(p) - math.log1p(-p)) + says["shift"]
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
    x, y = says["x"], says["y"]
    if math.isnan(score):
        return score
    at = bisect_right(x, score)
    if at in (0, len(x)):
        return float(y[0 if at == 0 else -1])
    x0, x1, y0, y1 = x[at - 1], x[at], y[at - 1], y[at]
    return float(min(y0 + (y1 - y0) * ((score - x0) / (x1 - x0)), y1))


def _numbers(answer: Mapping[str, Any]) -> Sequence[float]:
    several = answer.get("probabilities") or answer.get("quantiles")
    return [several[name] for name in sorted(several)] if several else [answer["output"]]
