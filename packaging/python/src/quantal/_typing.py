"""Names of types in signatures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

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


FloatArray = numpy.typing.NDArray[numpy.float32]
ArrayLike = numpy.typing.NDArray[Any] | DLPackArray | InterfaceArray | Sequence[float] | Sequence[Sequence[float]]
IntArray = numpy.typing.NDArray[numpy.integer[Any]] | DLPackArray
Buffer = bytes | bytearray | memoryview | numpy.typing.NDArray[Any] | DLPackArray
Activation = Literal["q8", "exact"]
FormatLike: TypeAlias = "str | int | Format"
PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
MetadataValue = int | float | bool | str | list[str] | list[bool] | numpy.typing.NDArray[Any]
MetadataLike: TypeAlias = "Metadata | Mapping[str, object]"
A = TypeVar("A")
