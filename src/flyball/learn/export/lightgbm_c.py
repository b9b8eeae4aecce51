"""Boosted trees through LightGBM's C library: the same bits as `Booster.predict`, at some microseconds a row.

The library is found beside the installed package without importing it. `row` holds the interpreter lock during the call
(`PyDLL`): a call of microseconds that gave it up could wait 5 ms to get it back. `batch` gives it up (`CDLL`).

A fast configuration of the library may be used by one thread at a time, and its input and output buffers are reused;
a lock (0.1 us) makes `row` safe to call from any thread.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from flyball._kernel.errors import AdapterError, StateError
from flyball.learn import task
from flyball.learn.export import boosted, predictor, several

_FLOAT32, _FLOAT64, _ROW_MAJOR, _NORMAL, _ALL = (ctypes.c_int(i) for i in (0, 1, 1, 0, -1))
_FROM_FIRST = ctypes.c_int(0)
_QUIET = b"num_threads=1 verbosity=-1"
"""One thread: rows are independent, a server has its own threads, and a batch must not stall the others."""


class LightGBM:
    """One loaded booster."""

    name: Literal["lightgbm"] = "lightgbm"

    def __init__(self, text: bytes, features: int, width: int = 1) -> None:
        self._booster, self._fast = ctypes.c_void_p(), ctypes.c_void_p()
        self._holding, self._free = _libraries()
        self._lock = threading.Lock()
        self.features, self.width = features, width
        self._shape = (features,)
        rounds = ctypes.c_int(0)
        self._call("LGBM_BoosterLoadModelFromString", text, ctypes.byref(rounds), ctypes.byref(self._booster))
        self._input = np.zeros(features, dtype=np.float32)
        self._output = (ctypes.c_double * width)()
        self._written = ctypes.c_int64(0)
        self._verify()
        # Built once: converting arguments would take longer than the trees.
        self._predict = self._holding.LGBM_BoosterPredictForMatSingleRowFast
        self._arguments = (
            self._fast,
            ctypes.c_void_p(self._input.ctypes.data),
            ctypes.byref(self._written),
            ctypes.byref(self._output),
        )

    def row(self, values: predictor.Matrix) -> task.Answer:
        """The answer to one row: float32 of shape (features,)."""
        if values.shape != self._shape or values.dtype != np.float32:
            raise predictor.wrong_shape(values.shape, values.dtype, self.features)
        with self._lock:
            self._input[:] = values
            if self._predict(*self._arguments):
                raise self._failed()
            return self._output[0] if self.width == 1 else tuple(self._output)

    def batch(self, matrix: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> task.Answers:
        """The answers to a float32 (or float64) matrix: float64 of shape (rows,), or (rows, width)."""
        kind = {"float32": _FLOAT32, "float64": _FLOAT64}.get(matrix.dtype.name)
        if matrix.ndim != 2 or matrix.shape[1] != self.features or kind is None:
            raise predictor.wrong_shape(matrix.shape, matrix.dtype, self.features)
        rows = np.ascontiguousarray(matrix)
        answers = np.zeros((len(rows), self.width), dtype=np.float64)
        written = ctypes.c_int64(0)
        if len(rows):
            self._call(
                "LGBM_BoosterPredictForMat",
                self._booster,
                ctypes.c_void_p(rows.ctypes.data),
                kind,
                ctypes.c_int32(len(rows)),
                ctypes.c_int32(self.features),
                _ROW_MAJOR,
                _NORMAL,
                _FROM_FIRST,
                _ALL,
                _QUIET,
                ctypes.byref(written),
                ctypes.c_void_p(answers.ctypes.data),
            )
        return answers[:, 0] if self.width == 1 else answers

    def __del__(self) -> None:
        # The last reference frees, so a version that is replaced while it answers is freed after that answer.
        if self._fast.value:
            self._free.LGBM_FastConfigFree(self._fast)
        if self._booster.value:
            self._free.LGBM_BoosterFree(self._booster)

    def _verify(self) -> None:
        """The library must read the text as `check` did: as many features, as many numbers a row."""
        features, classes = ctypes.c_int(0), ctypes.c_int(0)
        self._call("LGBM_BoosterGetNumFeature", self._booster, ctypes.byref(features))
        self._call("LGBM_BoosterGetNumClasses", self._booster, ctypes.byref(classes))
        if (features.value, classes.value) != (self.features, self.width):
            raise boosted.refused(f"the library found {features.value} features and {classes.value} classes")
        self._call(
            "LGBM_BoosterPredictForMatSingleRowFastInit",
            self._booster,
            _NORMAL,
            _FROM_FIRST,
            _ALL,
            _FLOAT32,
            ctypes.c_int32(self.features),
            _QUIET,
            ctypes.byref(self._fast),
        )

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._free, name)(*arguments):
            raise self._failed()

    def _failed(self) -> StateError:
        said: bytes = self._free.LGBM_GetLastError()
        return boosted.refused(f"the library says: {said.decode(errors='replace')}")


def load(data: bytes) -> predictor.Predictor:
    """The booster in `data`, text that `boosted.floor` wrote; or several of them, joined.

    Raises:
        StateError: `hostile-model`.
        AdapterError: `no-library`, when lightgbm is not installed.
    """
    return several.loaded(data, _one, boosted.refused)


def _one(data: bytes) -> LightGBM:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise boosted.refused("it is not UTF-8 text") from error
    return LightGBM(data, *boosted.check(text))


@cache
def _libraries() -> tuple[ctypes.PyDLL, ctypes.CDLL]:
    """The library twice: calls that hold the interpreter lock, and calls that give it up."""
    spec = importlib.util.find_spec("lightgbm")
    found = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("**/lib_lightgbm.*"))
    if not found:
        raise AdapterError("no-library", "LightGBM's library is not installed.", next="pip install lightgbm")
    holding, free = ctypes.PyDLL(str(found[0])), ctypes.CDLL(str(found[0]))
    free.LGBM_GetLastError.restype = ctypes.c_char_p
    return holding, free
