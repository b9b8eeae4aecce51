"""The Open Inference Protocol, version 2, over REST, as KServe and Triton speak it, with its binary tensor data extension.

A request has one tensor a column, of shape [n] or [n, 1]: its rows are n questions. Outputs are tensors as well: `output`, what
else the model's task has, and for each answer its `id`, `version` and `role`, so that nothing of an answer is lost.

Tensors know no null. A NaN is one, and so is a JSON null; for every other datatype in binary, a BOOL tensor `COLUMN.null` says
where the column has none. An instant is ISO text, or INT64: microseconds since 1970 UTC. `tensors` has how a tensor is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import msgspec

from flyball._kernel.errors import DataError, FlyballError, StateError
from flyball.serve.dialect import Asked, Page
from flyball.serve.dialects import cells, tensors
from flyball.serve.dialects.tensors import Parameters, Tensor
from flyball.serve.journal import Answer
from flyball.serve.message import Reply, Request
from flyball.serve.plan import Plan
from flyball.serve.router import Routed

ROOT: Final = "/v2"
HEADER: Final = b"inference-header-content-length"
OCTETS: Final = b"application/octet-stream"

kinds: Final = frozenset({OCTETS, b""})

_NAME: Final = "the Open Inference Protocol"
_BROWSER: Final = (b"origin", b"referer", b"sec-fetch-site")
_encode = msgspec.json.Encoder().encode


def paths(routed: Mapping[str, Routed]) -> Iterable[tuple[str, str]]:
    """See `Dialect`; a version that is named is the champion. Who answers is still the router's to say, and is said."""
    for model, each in routed.items():
        at = f"{ROOT}/models/{quote(model, safe='')}"
        yield f"{at}/infer", model
        yield f"{at}/versions/{quote(each.champion.version, safe='')}/infer", model


def pages(app: str, routed: Mapping[str, Routed]) -> Mapping[str, Page]:
    """See `Dialect`: the server's and each model's metadata, and whether they are ready."""
    extensions = ["binary_tensor_data"]
    found = {
        ROOT: Page(_said({"name": app, "version": version("flyball"), "extensions": extensions})),
        f"{ROOT}/health/live": Page(_said({"live": True}), free=True),
        f"{ROOT}/health/ready": Page(_said({"ready": bool(routed)}, 200 if routed else 503), free=True),
    }
    for model, each in routed.items():
        about, ready = (
            Page(_said(_metadata(model, each.champion))),
            Page(_said({"name": model, "ready": True}), free=True),
        )
        at = f"{ROOT}/models/{quote(model, safe='')}"
        for path in (at, f"{at}/versions/{quote(each.champion.version, safe='')}"):
            found[path], found[f"{path}/ready"] = about, ready
    return found


def absent(path: str, routed: Mapping[str, Routed]) -> FlyballError | None:
    """See `Dialect`."""
    if path != ROOT and not path.startswith(f"{ROOT}/"):
        return None
    parts = [unquote(part) for part in path.split("/")[2:]]
    if parts[:1] != ["models"] or len(parts) < 2:
        return StateError("no-such-page", "There is no such page.", next="GET /openapi.json lists what there is.")
    model = parts[1]
    if model not in routed:
        why = f"Answering: {', '.join(routed) or 'none'}."
        return StateError("no-such-model", f"No model {model!r} answers here.", why=why, next="GET /v2/models/<model>")
    champion = routed[model].champion.version
    if parts[2:3] == ["versions"] and len(parts) > 3 and parts[3] != champion:
        return StateError(
            "version-not-answering",
            f"{parts[3]!r} does not answer for {model!r}.",
            why=f"{champion} does.",
            next="Ask that one, or leave the version out.",
        )
    return StateError("no-such-page", "There is no such page.", next="GET /openapi.json lists what there is.")


class Form(NamedTuple):
    """In which form a request wants its answer.

    Attributes:
        id: of the request; is said again.
        outputs: name -> whether as binary data; None: all that there are.
        binary: whether those that say nothing else are binary data.
    """

    id: str | None
    outputs: Mapping[str, bool] | None
    binary: bool


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parameters: Parameters | None = None


class _Asking(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[Tensor]
    id: str | None = None
    outputs: list[_Wanted] | None = None
    parameters: Parameters | None = None


_asking = msgspec.json.Decoder(_Asking)


def read(plan: Plan, request: Request) -> Asked:
    """See `Dialect`.

    Raises:
        DataError: `request-not-in-dialect`, `request-breaks-contract`.
        Refused: 413 `request-too-large`.
    """
    headers, body = request.headers, request.body
    # The protocol's own clients send no media type. So may a page of another site; but a browser says that it is one.
    if not headers.get(b"content-type") and any(name in headers for name in _BROWSER):
        raise _refused("It names no media type.", "Send Content-Type: application/json.")
    length = headers.get(HEADER)
    if length is not None and not (length.isdigit() and len(length) < 16 and int(length) <= len(body)):
        raise _refused("Inference-Header-Content-Length is not the length of a part of the body.")
    end = len(body) if length is None else int(length)
    asking = cells.loose(body[:end], _asking, _NAME)
    form = _form(plan, asking)
    try:
        rows = tensors.rows(asking.inputs, body[end:], cells.kinds(plan))
    except ValueError as problem:
        raise _refused(str(problem)) from None
    return Asked(cells.judged(plan, rows, _NAME), form)


def write(plan: Plan, shape: Form, answers: Sequence[Answer], asked: datetime) -> Reply:
    """See `Dialect`; an output that one of the answers lacks is left out."""
    there = outputs(plan)
    wanted = dict.fromkeys(there, shape.binary) if shape.outputs is None else shape.outputs
    said: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for name, binary in wanted.items():
        values = _values(name, answers)
        datatype, width, _ = there[name]
        if len(values) != len(answers) * (width or 1) or None in values:
            continue
        one: dict[str, Any] = {"name": name, "shape": [len(answers), *([width] if width else [])], "datatype": datatype}
        if binary:
            chunks.append(tensors.packed(values, datatype))
            one["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            one["data"] = values
        said.append(one)
    versions = {each.version for each in answers} or {plan.version}
    whole: dict[str, Any] = {"model_name": plan.model}
    if len(versions) == 1:
        (whole["model_version"],) = versions
    if shape.id is not None:
        whole["id"] = shape.id
    head = _encode({**whole, "parameters": {"asked": asked}, "outputs": said})
    if not chunks:
        return Reply(200, head)
    return Reply(200, b"".join([head, *chunks]), OCTETS, ((HEADER, str(len(head)).encode()),))


def refuse(status: int, error: FlyballError) -> bytes:
    """See `Dialect`."""
    return _encode({"error": cells.sentence(error)})


Output = tuple[str, int, tuple[str, ...]]
"""Datatype; numbers of one answer, 0 where it is one without a name; the names of these."""


def outputs(plan: Plan) -> dict[str, Output]:
    """What a model's answers have, by the name of its tensor."""
    task = plan.task
    found: dict[str, Output] = {"output": ("FP64", 0, ())}
    if task.classes:
        found["decision"] = ("BYTES", 0, ())
        found["probabilities"] = ("FP64", len(task.classes), task.classes)
    elif task.quantiles:
        found["quantiles"] = ("FP64", len(task.quantiles), tuple(map(str, task.quantiles)))
    elif plan.finish.threshold is not None:
        found["decision"] = ("BOOL", 0, ())
    text: Output = ("BYTES", 0, ())
    return {**found, "id": text, "version": text, "role": text, "within_tolerance": ("BOOL", 0, ())}


def _values(name: str, answers: Sequence[Answer]) -> list[Any]:
    """One output of all answers, row-major."""
    if name in ("probabilities", "quantiles"):
        return [number for each in answers for number in each.outputs]
    return [getattr(each, name) for each in answers]


def _form(plan: Plan, asking: _Asking) -> Form:
    binary = _flag(asking.parameters, "binary_data_output", default=False)
    if not asking.outputs:  # none, and an empty list as Triton takes it: all
        return Form(asking.id, None, binary)
    there, found = outputs(plan), dict[str, bool]()
    for each in asking.outputs:
        if each.name not in there or each.name in found:
            what = "is asked for twice" if each.name in found else "is none"
            raise _refused(f"The output {each.name!r} {what}.", f"Ask for some of {', '.join(there)}.")
        if each.parameters and "classification" in each.parameters:
            raise _refused("The classification extension is not spoken here.", "Ask for `decision` or `probabilities`.")
        found[each.name] = _flag(each.parameters, "binary_data", default=binary)
    return Form(asking.id, found, binary)


def _flag(parameters: Parameters | None, name: str, *, default: bool) -> bool:
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise _refused(f"The parameter {name} is neither true nor false.")
    return value


def _metadata(model: str, plan: Plan) -> dict[str, Any]:
    required = set(plan.schema.get("required", ()))
    inputs = [
        {"name": name, "datatype": tensors.DATATYPES[kind], "shape": [-1], "parameters": {"required": name in required}}
        for name, kind in cells.kinds(plan).items()
    ]
    told: list[dict[str, Any]] = []
    for name, (datatype, width, names) in outputs(plan).items():
        told.append({"name": name, "datatype": datatype, "shape": [-1, width] if width else [-1]})
        if names:
            told[-1]["parameters"] = {"names": names}
    return {"name": model, "versions": [plan.version], "platform": "flyball", "inputs": inputs, "outputs": told}


def _said(value: Mapping[str, Any], status: int = 200) -> Reply:
    return Reply(status, _encode(value))


def _refused(why: str, next: str = "GET /v2/models/<model> has the inputs and outputs of a model.") -> DataError:
    return cells.unreadable(_NAME, why, next)
