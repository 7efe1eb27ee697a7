"""Names of types in signatures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, Union

import numpy
import numpy.typing

if TYPE_CHECKING:
    from ._core import Format, Metadata


class DLPackArray(Protocol):
    """An array of any library that exchanges memory through DLPack, torch.Tensor say."""

    def __dlpack__(self) -> Any: ...


class InterfaceArray(Protocol):
    """An array that describes its memory in the manner of numpy."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


# Union and not |: CPython 3.9 evaluates these.
FloatArray = numpy.typing.NDArray[numpy.float32]
"""On a device: an array of the library that made the memory."""
ArrayLike = Union[numpy.typing.NDArray[Any], DLPackArray, InterfaceArray, Sequence[float], Sequence[Sequence[float]]]
IntArray = Union[numpy.typing.NDArray[numpy.integer[Any]], DLPackArray]
Buffer = Union[bytes, bytearray, memoryview, numpy.typing.NDArray[Any], DLPackArray]
Activation = Literal["q8", "exact", "bf16", "fp8"]
FormatLike = Union[str, int, "Format"]
PathLike = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
MetadataValue = Union[int, float, bool, str, "list[str]", "list[bool]", numpy.typing.NDArray[Any]]
MetadataLike = Union["Metadata", Mapping[str, object]]
A = TypeVar("A")
