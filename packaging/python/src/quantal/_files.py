"""Whole GGUF files from arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Union

import numpy
import numpy.typing

from ._core import GGUFWriter, QuantizedArray, quantize

if TYPE_CHECKING:
    from ._typing import ArrayLike, MetadataLike, PathLike

_PLAIN = {"int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "float64": "f64"}
_Stored = Union[QuantizedArray, numpy.typing.NDArray[numpy.generic]]


def _stored(name: str, array: ArrayLike | QuantizedArray) -> tuple[str, _Stored]:
    """Returns the type of the tensor and the memory that holds it."""
    if isinstance(array, QuantizedArray):
        return array.format.name, array
    dtype = str(getattr(array, "dtype", "")).removeprefix("torch.")
    if dtype == "bfloat16":
        return "bf16", quantize(array, "bf16")
    values = numpy.ascontiguousarray(array)
    if values.dtype.name == "float32":
        return "f32", values
    if values.dtype.name == "float16":
        return "f16", values.view(numpy.uint16)
    if values.dtype.name not in _PLAIN:
        raise TypeError(f"tensor '{name}': GGUF has no type for {values.dtype}")
    return _PLAIN[values.dtype.name], values


def write_gguf(
    path: PathLike,
    tensors: Mapping[str, ArrayLike | QuantizedArray],
    metadata: MetadataLike | None = None,
) -> None:
    """Writes a GGUF file; it appears whole or not at all.

    tensors: names with QuantizedArrays, or arrays of float32, float16, bfloat16, float64, int8 ... int64, each
        (..., rows, cols) with 1 to 4 dimensions. For more than fits into memory: GGUFWriter.
    metadata: a Metadata, which keeps the types of its keys, or a mapping (see Metadata).
    """
    stored = {name: _stored(name, array) for name, array in tensors.items()}
    plan = [(name, kind, array.shape) for name, (kind, array) in stored.items()]
    with GGUFWriter(path, plan, metadata) as writer:
        for _, array in stored.values():
            writer.write(array)
