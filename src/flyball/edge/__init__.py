"""A version that answers anywhere: what goes into a bundle, beside its data. It needs Python 3.10, numpy and onnxruntime.

    load(path)     a bundle, checked file by file and against the answers that it was made with
    Edge.predict   a row, as a request of the server -> what the server would say, bit for bit

Nothing of flyball is imported here, and nothing that is read runs code: the data are JSON and ONNX. In a bundle this package is
called `flyball_edge`.
"""

from .model import Edge, load
from .refused import Refused

__all__ = ["Edge", "Refused", "load"]
