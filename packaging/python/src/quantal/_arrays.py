"""Arrays that the extension module does not take as they are, and what it returns to Python."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy
import numpy.typing

from . import _core


class Importance(NamedTuple):
    """Importance of a tensor, as Imatrix.lookup finds it; quantize() takes it as it is."""

    weights: numpy.typing.NDArray[numpy.float32]
    """(vectors, cols): each vector serves an equal run of consecutive rows."""
    source: str
    """"own entry", "same-input alias", "layout adaptation", "pooled" or "proxy"."""
    detail: str
    """The entry that was used."""


def prepare(source: Any) -> tuple[Any, bool]:
    """Returns an array that imports, or None, and whether its elements are the bits of bfloat16."""
    if getattr(source, "requires_grad", False):
        return source.detach(), False
    if not hasattr(source, "__array_interface__") and not isinstance(source, (list, tuple)):
        return None, False
    array = numpy.asarray(source)
    if array.dtype.name == "bfloat16":
        return array.view(numpy.uint16), True
    if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
        return None, False
    native = array.dtype.newbyteorder("=")
    return numpy.ascontiguousarray(array, dtype=native), False


def restore(data: bytes, format: str, shape: tuple[int, ...]) -> _core.QuantizedArray:
    """What pickles of a QuantizedArray call."""
    return _core.QuantizedArray.from_buffer(data, format, shape)


def restore_format(gguf_id: int) -> _core.Format:
    """What pickles of a Format call."""
    return _core.format(gguf_id)
