"""Block-quantization formats of ggml and ik_llama.cpp: encode, decode, multiply, and the files that hold them."""

from ._arrays import Importance
from ._core import (
    GGUF,
    Format,
    GGUFWriter,
    Imatrix,
    Metadata,
    QuantizedArray,
    TransposedArray,
    __version__,
    arch,
    archs,
    cuda_formats,
    dequantize,
    error,
    format,
    formats,
    mul_mat,
    mul_mat_id,
    quantize,
)
from ._files import write_gguf

__all__ = [
    "GGUF",
    "Format",
    "GGUFWriter",
    "Imatrix",
    "Importance",
    "Metadata",
    "QuantizedArray",
    "TransposedArray",
    "__version__",
    "arch",
    "archs",
    "cuda_formats",
    "dequantize",
    "error",
    "format",
    "formats",
    "mul_mat",
    "mul_mat_id",
    "quantize",
    "write_gguf",
]
