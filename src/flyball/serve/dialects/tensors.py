"""Tensors of the Open Inference Protocol and the columns that they are: JSON, or little-endian bytes behind it.

Every number is checked against its datatype, as a tensor of that type would hold it; what a column takes is the contract's
to say. No tensor makes more cells than its bytes hold, so a small request stays small.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np

from flyball.serve.dialects import cells
from flyball.serve.dialects.cells import Kind

Parameters = dict[str, Any]

DATATYPES: Final[Mapping[Kind, str]] = {
    "truth": "BOOL",
    "whole": "INT64",
    "number": "FP64",
    "instant": "BYTES",
    "text": "BYTES",
}
"""How the metadata of a model names a column; every datatype that can say the same is taken."""

NULL: Final = ".null"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DTYPES: Final[Mapping[str, str]] = {
    "BOOL": "u1",
    **{f"{'U' * (sign == 'u')}INT{8 * size}": f"<{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}

_NONE: Final = type(None)
_WHOLE: Final = ({int, _NONE}, "whole numbers")
_NUMBERS: Final = ({int, float, _NONE}, "numbers")
_JSON: Final = {"BOOL": ({bool, _NONE}, "truth values"), "BYTES": ({str, _NONE}, "texts")}


class Tensor(msgspec.Struct, forbid_unknown_fields=True):
    """One input of a request.

    Attributes:
        shape: [n] or [n, 1].
        parameters: `binary_data_size` is read: so many bytes of the body are its values.
        data: otherwise its values; nested, or row-major.
    """

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: list[Any] | None = None


def rows(given: Sequence[Tensor], binary: bytes, kinds: Mapping[str, Kind]) -> list[dict[str, Any]]:
    """The rows that the tensors are the columns of.

    Args:
        binary: what follows the JSON.
        kinds: of the columns.

    Raises:
        ValueError: they are no columns of one table; says which of them, and why.
        Refused: see `cells.few`.
    """
    if not given:
        raise ValueError("Expected one tensor a column, got none")
    table: dict[str, list[Any]] = {}
    start, count = 0, _count(given[0])
    cells.few(count)
    for tensor in given:
        if tensor.name in table:
            raise ValueError(f"Two tensors have the name `{tensor.name}`")
        if _count(tensor) != count:
            raise ValueError(f"Expected {count} rows, got {_count(tensor)} - at `{tensor.name}`")
        if (size := _size(tensor)) is None:
            values = _listed(tensor)
        else:
            start, end = start + size, start
            values = _unpacked(tensor, binary[end:start]) if start <= len(binary) else []
        if len(values) != count:
            raise ValueError(f"Expected {count} values, got {len(values)} - at `{tensor.name}`")
        instants = kinds.get(tensor.name) == "instant" and tensor.datatype == "INT64"
        table[tensor.name] = _instants(values, tensor.name) if instants else values
    if start != len(binary):
        raise ValueError(f"The tensors have {start:,} bytes of binary data, and the body has {len(binary):,}")
    _without(table, kinds)
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def packed(values: Sequence[Any], datatype: str) -> bytes:
    """Values of an output as binary data: FP64, BOOL or BYTES."""
    if datatype == "FP64":
        return np.asarray(values, dtype="<f8").tobytes()
    if datatype == "BOOL":
        return bytes(values)
    texts = [each.encode() for each in values]
    return b"".join(struct.pack("<I", len(each)) + each for each in texts)


def _count(tensor: Tensor) -> int:
    if not 1 <= len(tensor.shape) <= 2 or tensor.shape[0] < 0 or tensor.shape[1:] not in ([], [1]):
        raise ValueError(f"Expected the shape [n] or [n, 1] - at `{tensor.name}`")
    return tensor.shape[0]


def _size(tensor: Tensor) -> int | None:
    """Bytes of binary data; None of a tensor in JSON."""
    parameters = tensor.parameters or {}
    if any(name.startswith("shared_memory_") for name in parameters):
        raise ValueError(f"Shared memory is not read - at `{tensor.name}`")
    size = parameters.get("binary_data_size")
    if (size is None) == (tensor.data is None):
        raise ValueError(f"Expected `data`, or else the parameter binary_data_size - at `{tensor.name}`")
    if size is not None and (type(size) is not int or size < 0):
        raise ValueError(f"Expected a size - at `{tensor.name}`")
    return size


def _listed(tensor: Tensor) -> list[Any]:
    """The values of a tensor in JSON."""
    data, datatype = tensor.data or [], tensor.datatype
    if len(tensor.shape) == 2 and any(isinstance(each, list) for each in data):
        data = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in data]
    if datatype != "BYTES" and datatype not in _DTYPES:
        raise _unknown(tensor)
    taken, told = _JSON.get(datatype, _NUMBERS if datatype.startswith("FP") else _WHOLE)
    if not set(map(type, data)) <= taken:
        raise ValueError(f"Expected {told} or null, of {datatype} - at `{tensor.name}`")
    if taken is _WHOLE[0]:
        limits, numbers = np.iinfo(_DTYPES[datatype]), [each for each in data if each is not None]
        if numbers and not (limits.min <= min(numbers) and max(numbers) <= limits.max):
            raise ValueError(f"Expected numbers from {limits.min} to {limits.max} - at `{tensor.name}`")
    return data if taken is not _NUMBERS[0] else _rounded(data, datatype, tensor.name)


def _rounded(data: Sequence[float | None], datatype: str, name: str) -> list[float | None]:
    """What a tensor of floats would hold; a whole number may be beyond them."""
    numbers = [math.nan if each is None else each for each in data]
    try:
        if datatype != "FP64":
            with np.errstate(over="ignore"):  # it becomes infinite, and is refused as that
                numbers = np.asarray(numbers, dtype=_DTYPES[datatype]).tolist()
        return cells.finite(map(float, numbers), name)
    except OverflowError:
        raise ValueError(f"Expected finite numbers - at `{name}`") from None


def _unpacked(tensor: Tensor, chunk: bytes) -> list[Any]:
    """The values of a tensor in binary data."""
    if tensor.datatype == "BYTES":
        return _texts(chunk, tensor.name)
    if (dtype := _DTYPES.get(tensor.datatype)) is None:
        raise _unknown(tensor)
    if len(chunk) % np.dtype(dtype).itemsize:
        raise ValueError(f"The binary data is cut short - at `{tensor.name}`")
    values = np.frombuffer(chunk, dtype=dtype)
    if tensor.datatype == "BOOL":
        if values.size and values.max() > 1:
            raise ValueError(f"Expected bytes of 0 and 1 - at `{tensor.name}`")
        return list(values.astype(bool).tolist())
    found: list[Any] = values.tolist()
    return cells.finite(found, tensor.name) if tensor.datatype.startswith("FP") else found


def _texts(chunk: bytes, name: str) -> list[str]:
    """Texts, each behind its length in four bytes."""
    found, at = list[str](), 0
    while at < len(chunk):
        end = at + 4 + int.from_bytes(chunk[at : at + 4], "little")
        if end > len(chunk) or len(chunk) - at < 4:
            raise ValueError(f"The binary data is cut short - at `{name}`")
        try:
            found.append(chunk[at + 4 : end].decode())
        except UnicodeDecodeError:
            raise ValueError(f"Expected UTF-8 - at `{name}`") from None
        at = end
    return found


def _instants(values: Sequence[int | None], name: str) -> list[datetime | None]:
    try:
        return [None if value is None else _EPOCH + timedelta(microseconds=value) for value in values]
    except OverflowError:
        raise ValueError(f"Expected microseconds since 1970, from the year 1 to 9999 - at `{name}`") from None


def _without(table: dict[str, list[Any]], kinds: Mapping[str, Kind]) -> None:
    """Make null what a tensor `COLUMN.null` says is; it is a column where the contract has one of that name."""
    for name in [name for name in table if name.endswith(NULL) and name not in kinds]:
        of, missing = name.removesuffix(NULL), table.pop(name)
        if of not in table or not all(type(each) is bool for each in missing):
            raise ValueError(f"Expected a tensor of BOOL beside the one of its column - at `{name}`")
        table[of] = [None if gone else value for value, gone in zip(table[of], missing, strict=True)]


def _unknown(tensor: Tensor) -> ValueError:
    known = ", ".join(["BYTES", *_DTYPES])
    return ValueError(f"The datatype {tensor.datatype[:20]!r} is none of {known} - at `{tensor.name[:100]}`")
