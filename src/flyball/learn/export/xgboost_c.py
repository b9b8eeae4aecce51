"""XGBoost's trees through its C library: the same bits as `Booster.inplace_predict`, without importing xgboost.

The library is found beside the installed package (of `xgboost` or `xgboost-cpu`). Arrays go in by their address, said in
JSON, so the buffer of `row` and what is said of it are made once. A lock guards that buffer; the library's own result lives
until the next call of the same thread, and is copied within the lock.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import threading
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from flyball._kernel.errors import AdapterError, StateError
from flyball.learn import task
from flyball.learn.export import predictor, several, xgboost_json

_ASKED = json.dumps(
    {"type": 0, "training": False, "iteration_begin": 0, "iteration_end": 0, "missing": float("nan")}
    | {"strict_shape": True, "cache_id": 0}
).encode()
"""Values, of all trees, two dimensions whatever there is."""


class XGBoost:
    """One loaded booster."""

    name: Literal["xgboost"] = "xgboost"

    def __init__(self, data: bytes, features: int, width: int) -> None:
        self._booster = ctypes.c_void_p()
        self._library = _library()
        self._lock = threading.Lock()
        self.features, self.width = features, width
        self._shape = (features,)
        self._call("XGBoosterCreate", None, ctypes.c_uint64(0), ctypes.byref(self._booster))
        self._call("XGBoosterSetParam", self._booster, b"nthread", b"1")
        self._call("XGBoosterSetParam", self._booster, b"verbosity", b"0")
        self._call("XGBoosterLoadModelFromBuffer", self._booster, data, ctypes.c_uint64(len(data)))
        self._verify()
        self._input = np.zeros((1, features), dtype=np.float32)
        self._said = _interface(self._input)

    def row(self, values: predictor.Matrix) -> task.Answer:
        """The answer to one row: float32 of shape (features,)."""
        if values.shape != self._shape or values.dtype != np.float32:
            raise predictor.wrong_shape(values.shape, values.dtype, self.features)
        with self._lock:
            self._input[0] = values
            found = self._asked(self._said, 1)
            return found[0] if self.width == 1 else tuple(found[: self.width])

    def batch(self, matrix: predictor.Matrix) -> task.Answers:
        """The answers to a float32 matrix of shape (rows, features): float64 of shape (rows,), or (rows, width)."""
        if matrix.ndim != 2 or matrix.shape[1] != self.features or matrix.dtype != np.float32:
            raise predictor.wrong_shape(matrix.shape, matrix.dtype, self.features)
        wanted = (len(matrix),) if self.width == 1 else (len(matrix), self.width)
        if not len(matrix):
            return np.zeros(wanted, dtype=np.float64)
        rows = np.ascontiguousarray(matrix)
        with self._lock:
            found = self._asked(_interface(rows), len(rows))
            return np.ctypeslib.as_array(found, (len(rows) * self.width,)).astype(np.float64).reshape(wanted)

    def __del__(self) -> None:
        if self._booster.value:
            self._library.XGBoosterFree(self._booster)

    def _asked(self, said: bytes, rows: int) -> ctypes._Pointer[ctypes.c_float]:
        shape, dims = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64(0)
        found = ctypes.POINTER(ctypes.c_float)()
        self._call(
            "XGBoosterPredictFromDense",
            self._booster,
            said,
            _ASKED,
            None,
            ctypes.byref(shape),
            ctypes.byref(dims),
            ctypes.byref(found),
        )
        if dims.value != 2 or (shape[0], shape[1]) != (rows, self.width):
            raise xgboost_json.refused("the library answers other numbers than the model has")
        return found

    def _verify(self) -> None:
        """The library must read the model as `check` did: as many features."""
        features = ctypes.c_uint64(0)
        self._call("XGBoosterGetNumFeature", self._booster, ctypes.byref(features))
        if features.value != self.features:
            raise xgboost_json.refused(f"the library found {features.value} features")

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._library, name)(*arguments):
            raise self._failed()

    def _failed(self) -> StateError:
        said: bytes = self._library.XGBGetLastError()
        return xgboost_json.refused(f"the library says: {said.decode(errors='replace')[:300]}")


def load(data: bytes) -> predictor.Predictor:
    """The booster in `data`, JSON that `xgboost_json.canonical` wrote; or several of them, joined.

    Raises:
        StateError: `hostile-model`.
        AdapterError: `no-library`, when XGBoost is not installed.
    """
    return several.loaded(data, lambda part: XGBoost(part, *xgboost_json.check(part)), xgboost_json.refused)


def _interface(rows: predictor.Matrix) -> bytes:
    """The array interface of numpy for float32 rows, as the library wants it said."""
    return json.dumps(
        {"data": [rows.ctypes.data, True], "shape": list(rows.shape), "typestr": "<f4", "version": 3}
    ).encode()


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xgboost")
    found = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("lib/*xgboost.*"))
    if not found:
        raise AdapterError("no-library", "XGBoost's library is not installed.", next="pip install 'flyball[xgboost]'")
    library = ctypes.CDLL(str(found[0]))
    library.XGBGetLastError.restype = ctypes.c_char_p
    return library
