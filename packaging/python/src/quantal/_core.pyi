"""Formats, quantizers, kernels and files of quantal."""

from typing import overload

import numpy
import numpy.typing


from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn

from ._arrays import Importance
from ._typing import A, Activation, ArrayLike, Buffer, FloatArray, FormatLike, IntArray, MetadataLike, MetadataValue, PathLike

__version__: Final[str]

class Format:
    """What is known about a format."""

    @property
    def name(self) -> str:
        """"q4_K"."""

    @property
    def gguf_id(self) -> int:
        """Type number in GGUF files."""

    @property
    def block(self) -> int:
        """Weights per block."""

    @property
    def block_bytes(self) -> int:
        """Bytes per block."""

    @property
    def row_meta(self) -> int:
        """Bytes in front of the blocks of a row."""

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight, without row_meta."""

    @property
    def is_float(self) -> bool:
        """f32, f16 and bf16."""

    @property
    def is_weight(self) -> bool:
        """Stored in model files; else a format of activations."""

    def row_bytes(self, cols: int) -> int:
        """
        Bytes of a row of `cols` weights; ValueError where they are not whole blocks.
        """

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __reduce__(self) -> tuple[object, ...]: ...

    def __repr__(self) -> str: ...

def formats() -> tuple[Format, ...]:
    """All formats."""

def format(format: FormatLike) -> Format:
    """
    The format of a name, in any case, or of a type number of GGUF files; ValueError for others.
    """

def cuda_formats() -> tuple[str, ...]:
    """
    Names of the formats that this build works with on CUDA devices; none in a build without CUDA.
    """

def arch() -> str:
    """The instruction set that this process uses: "avx2", "avx512_vnni", ..."""

def archs() -> tuple[str, ...]:
    """The instruction sets that this build carries, best first."""

class QuantizedArray:
    """
    Weights of one format: rows of blocks that lie side by side. Immutable; shares its memory.

    q @ x multiplies like numpy (x: (cols,), or (..., cols, n)); x @ q.T is the product of a linear layer. Slices of rows
    share the memory: q[3], q[2:10], q[expert, 2:10]. Pickles, copies of them, and save() hold the bytes as they are.
    """

    @staticmethod
    def from_buffer(data: Buffer, format: FormatLike, shape: int | Sequence[int]) -> QuantizedArray:
        """
        Raw blocks as an array, without copying (memory that is not aligned to 8 bytes is copied).

        data: bytes or any contiguous memory of exactly the bytes that format and shape say, on a CUDA device too where the build
            has CUDA: products and dequantize() work there then, on the current stream of the library that made the memory. It
            begins at a multiple of 16 bytes there. A stream that __cuda_array_interface__ names is waited for.
        shape: (..., rows, cols) in weights, 1 to 4 dimensions.
        """

    @staticmethod
    def load(path: PathLike) -> QuantizedArray:
        """
        Maps a file that save() wrote; the mapping lives as long as arrays of it.
        """

    def save(self, path: PathLike) -> None:
        """Writes a GGUF file of one tensor; it appears whole or not at all."""

    @property
    def format(self) -> Format:
        """The format."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., rows, cols) in weights."""

    @property
    def ndim(self) -> int:
        """Number of dimensions."""

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks."""

    @property
    def device(self) -> str:
        """Where the blocks lie: "cpu", "cuda:0"."""

    def cpu(self) -> QuantizedArray:
        """The array itself, or where it lies on a device a copy of it."""

    @property
    def data(self) -> numpy.typing.NDArray[numpy.uint8]:
        """
        The blocks as a read-only array (..., rows, bytes of a row), without copying.
        """

    def tobytes(self) -> bytes:
        """A copy of the blocks."""

    def dequantize(self, out: FloatArray | None = None, *, threads: int | None = None) -> FloatArray:
        """
        Decodes to float32 of the same shape, bit-exactly; `out` is written to where it is given. On a device the result is an array there.
        """

    @property
    def T(self) -> TransposedArray:
        """For x @ q.T, (..., cols) to (..., rows)."""

    def __matmul__(self, x: A) -> A:
        """x: (cols,) or (..., cols, n); the result is (rows,) or (..., rows, n)."""

    def __getitem__(self, index: int | slice | tuple[int | slice, ...]) -> QuantizedArray:
        """
        Parts of the outermost dimensions, without copying. Slices have step 1, and only the last index is one.
        """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[QuantizedArray]: ...

    def __array__(self, *args: object, **kwargs: object) -> NoReturn: ...

    def __reduce__(self) -> tuple[object, ...]: ...

    def __repr__(self) -> str: ...

    __array_ufunc__: None = None

class TransposedArray:
    """The right operand of x @ q.T."""

    @property
    def T(self) -> QuantizedArray:
        """The array itself."""

    @property
    def shape(self) -> tuple[int, int]:
        """(cols, rows)."""

    def __rmatmul__(self, x: A) -> A:
        """x: (..., cols); the product is (..., rows), as mul_mat gives it."""

    __array_ufunc__: None = None

def quantize(array: ArrayLike, format: FormatLike, importance: ArrayLike | Importance | None = None, *, threads: int | None = None) -> QuantizedArray:
    """
    Quantizes an array of weights, row by row.

    array: (..., rows, cols), 1 to 4 dimensions of float32, float16, bfloat16 or float64 on the CPU; cols is a multiple of
        the format's block. float32 rows are read in place, others are converted one at a time.
    format: a name ("q4_K", in any case) or the type number of GGUF files.
    importance: one weight per column, (cols,), or (n, cols) where each vector serves rows / n consecutive rows; finite and
        not negative. Only ratios within a vector matter.
    threads: 1 to 1024; None: all cores where there is enough to do. The bytes do not depend on it.

    Raises ValueError for shapes that do not fit, NaN and infinities (it names row and column). Ctrl-C ends it.
    """

def dequantize(data: Buffer, format: FormatLike, shape: int | Sequence[int], out: FloatArray | None = None, *, threads: int | None = None) -> FloatArray:
    """
    Decodes raw blocks, bit-exactly.

    data: bytes, or anything with contiguous memory, of exactly the bytes that format and shape say.
    shape: (..., rows, cols) in weights, 1 to 4 dimensions.
    out: a float32 array of that shape to write to.

    Returns a float32 array of that shape.
    """

def mul_mat(weights: QuantizedArray, x: A, out: FloatArray | None = None, *, activation: Activation = 'q8', threads: int | None = None) -> A:
    """
    out[..., r] = sum over c of weights[r, c] * x[..., c].

    weights: (rows, cols). x: (..., cols), float32 in place where rows have one distance, other floats converted; on the device
        of the weights where they are on one.
    out: a float32 array (..., rows) to write to.
    activation: "q8" rounds x to int8 with a scale per 128 values (normalised MSE <= 5e-5), "exact" keeps float32. On a CUDA
        device: "bf16" (relative error about 3e-3), "q8" where that is faster (about 1e-2), "fp8" (about 4e-2).
    threads: None: all cores for large products, else the calling thread.

    Returns (..., rows), float32: a torch.Tensor for a torch.Tensor, a cupy array for one, else a numpy array. Kernels of a
    device are launched on the current stream of torch or cupy, and not waited for.
    """

def mul_mat_id(weights: QuantizedArray, x: A, ids: IntArray, out: FloatArray | None = None, *, activation: Activation = 'q8', threads: int | None = None) -> A:
    """
    out[t, j, r] = sum over c of weights[ids[t, j], r, c] * x[t, j, c]: products of a mixture of experts.

    weights: (experts, rows, cols). ids: (tokens, slots), integers below experts (on a device others are not seen, and their
        results are NaN).
    x: (tokens, slots, cols), or (tokens, cols) where all slots of a token share its vector.

    Returns (tokens, slots, rows), float32; out, activation and threads as in mul_mat.
    """

def error(original: ArrayLike, decoded: ArrayLike | QuantizedArray, importance: ArrayLike | Importance | None = None, *, threads: int | None = None) -> dict[str, float]:
    """
    How far quantized weights are from their source, in float64; quantized rows are decoded one at a time.

    original, decoded: arrays of one shape. importance: as for quantize().

    Returns the measures of quantal-validate: nmse (squared error / squared weights), wnmse (the same, weighted by
    importance; only with it), cosine (of the angle between both), max_error (largest absolute difference; infinite where
    a decoded weight is not finite).
    """

class Imatrix:
    """
    An importance matrix: per tensor the sums of squared inputs of every column, and how many inputs.

    Entries have names of GGUF tensors ("blk.0.ffn_up.weight") and one slice, or a slice per expert or head.
    """

    def __init__(self, *, chunk_size: int = 512) -> None:
        """Empty. chunk_size: tokens per chunk, which files record."""

    @staticmethod
    def load(path: PathLike) -> Imatrix:
        """Reads either form of file, GGUF or the older .dat."""

    def save(self, path: PathLike) -> None:
        """
        Writes the older form for names in .dat, else GGUF, which keeps everything. Appears whole or not at all.
        """

    @staticmethod
    def from_activations(name: str, x: ArrayLike) -> Imatrix:
        """A matrix of one entry; x: (..., cols), the inputs of that tensor."""

    def accumulate(self, name: str, x: ArrayLike, *, slice: int = 0, slices: int = 1) -> None:
        """
        Adds inputs of a tensor: x is (..., cols), one input per row, on the CPU.

        slice, slices: which expert or head saw them, of how many. NaN and infinities are refused, and nothing is added then.
        """

    def merge(self, other: Imatrix) -> None:
        """Adds the sums and counts of another matrix, exactly."""

    def sums(self, name: str) -> numpy.typing.NDArray[numpy.float64]:
        """Sums of squares, (slices, cols), a copy."""

    def counts(self, name: str) -> numpy.typing.NDArray[numpy.int64]:
        """Inputs per slice, (slices,), a copy."""

    def lookup(self, name: str, shape: int | Sequence[int], *, heads: int = 0, experts: int = 0, shrinkage: float = 64.0) -> Importance | None:
        """
        Importance for a tensor of that name and shape (..., rows, cols), for quantize(); None without data.

        Its own entry, else that of a tensor with the same input, another layout or a proxy. shrinkage: rows that the mean over
        all experts counts for against an expert's own. ValueError names both shapes where an entry does not fit.
        """

    @property
    def datasets(self) -> list[str]:
        """Calibration files in order of use."""

    @property
    def chunk_size(self) -> int:
        """Tokens per chunk."""

    @property
    def chunk_count(self) -> int:
        """Chunks that the best-seen entry stands for."""

    @property
    def approximate_counts(self) -> bool:
        """A .dat file without counts went in."""

    def names(self) -> list[str]:
        """Names of the entries, sorted."""

    def __contains__(self, name: str) -> bool: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[str]: ...

    def __eq__(self, other: object, /) -> bool: ...

    def copy(self) -> Imatrix:
        """An independent copy."""

    def __repr__(self) -> str: ...

class Metadata:
    """
    Keys and values of a GGUF file, in order, with their types: a mutable mapping.

    Values are int, float, bool, str; arrays of numbers are numpy arrays (copies), others lists. What is set keeps the type
    that the key has; new keys get u32 (i32, i64, u64 where that does not hold them), f32, bool, str, arrays of integers
    i32 or i64; numpy's scalars and arrays bring their own. set() says the type.
    """

    def __init__(self, mapping: MetadataLike | None = None) -> None: ...

    def __getitem__(self, key: str) -> MetadataValue: ...

    def __setitem__(self, key: str, value: object) -> None: ...

    def __delitem__(self, key: str) -> None: ...

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default`."""

    def set(self, key: str, value: object, type: str) -> None:
        """
        Sets a key with a type: u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 bool str, or an array of it: "[i32]".
        """

    def type(self, key: str) -> str:
        """The type of a key: "u32", "[str]"."""

    def update(self, mapping: MetadataLike) -> None:
        """Sets all keys of a mapping."""

    def copy(self) -> Metadata:
        """A copy that can be changed."""

    def keys(self) -> list[str]:
        """The keys, in the order of the file."""

    def values(self) -> list[MetadataValue]:
        """The values, in the order of the file."""

    def items(self) -> list[tuple[str, MetadataValue]]:
        """Keys with their values."""

    def __iter__(self) -> Iterator[str]: ...

    def __len__(self) -> int: ...

    def __contains__(self, key: object) -> bool: ...

    def __repr__(self) -> str: ...

class GGUF:
    """
    A GGUF file, mapped: a mapping of names of tensors to arrays, which are not copied.

    Tensors of f32, f16, i8 ... i64 and f64 are read-only numpy arrays, all others (bf16 too) QuantizedArrays, with shapes
    (..., rows, cols). Arrays stay good when the file is closed or forgotten. Split models open through their first file.
    A file that another process truncates while it is mapped ends the process (SIGBUS), as with every mapping.
    """

    def __init__(self, path: PathLike) -> None:
        """
        Opens and checks a file. OSError where it cannot be read, ValueError (with file, tensor or key, and cause)
        where it is no GGUF file or a damaged one.
        """

    @property
    def metadata(self) -> Metadata:
        """Keys and values, read-only."""

    @property
    def path(self) -> str:
        """Its path."""

    @property
    def shards(self) -> int:
        """Files of a split model, or 1."""

    def __getitem__(self, name: str) -> numpy.typing.NDArray[Any] | QuantizedArray: ...

    def quantized(self, name: str) -> QuantizedArray:
        """
        A tensor of any format, f32 and f16 too, as a QuantizedArray; not copied.
        """

    def shape(self, name: str) -> tuple[int, ...]:
        """(..., rows, cols)."""

    def type(self, name: str) -> str:
        """
        "q4_K", "i32"; "type 77" for types that are not known, which have no data.
        """

    def keys(self) -> list[str]:
        """Names of the tensors, in the order of the file."""

    def __iter__(self) -> Iterator[str]: ...

    def __len__(self) -> int: ...

    def __contains__(self, name: object) -> bool: ...

    def close(self) -> None:
        """Forgets the file. Arrays of it stay good."""

    def __enter__(self) -> GGUF: ...

    def __exit__(self, *exc: object) -> None: ...

    def __repr__(self) -> str: ...

class GGUFWriter:
    """
    Writes a GGUF file tensor by tensor; it appears whole or not at all.

    with quantal.GGUFWriter(path, [(name, type, shape), ...], metadata) as w: w.write(...) for each, in order.
    An exception inside the block leaves what was at the path before.
    """

    def __init__(self, path: PathLike, tensors: Iterable[tuple[str, FormatLike, int | Sequence[int]]], metadata: MetadataLike | None = None) -> None:
        """
        tensors: (name, format or "i8" ... "i64", "f64", shape (..., rows, cols) in weights), in order.
        """

    @overload
    def write(self, data: QuantizedArray) -> None:
        """
        The next bytes of the file: a tensor, or a piece of one; contiguous memory of its type.
        """

    @overload
    def write(self, data: Buffer) -> None: ...

    def finish(self) -> None:
        """Makes the file visible; OSError where bytes are missing."""

    def discard(self) -> None:
        """Leaves nothing behind."""

    def __enter__(self) -> GGUFWriter: ...

    def __exit__(self, type: object, value: object, traceback: object) -> None: ...
