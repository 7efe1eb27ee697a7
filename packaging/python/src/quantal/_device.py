"""Memory and streams of CUDA devices, by the library that an array is of: torch or cupy.

DLPack would do for torch too; asking a tensor takes a fifth of its time.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any


@lru_cache
def _torch_types() -> dict[Any, tuple[int, int]]:
    """Codes and bits as DLPack has them, of the types that this torch has."""
    torch = sys.modules["torch"]
    codes = {f"{kind}{bits}": (code, bits) for code, kind in enumerate(("int", "uint")) for bits in (8, 16, 32, 64)}
    codes.update(float16=(2, 16), float32=(2, 32), float64=(2, 64), bfloat16=(4, 16), bool=(6, 8))
    codes.update(complex32=(5, 32), complex64=(5, 64), complex128=(5, 128))
    codes.update(float8_e4m3fn=(10, 8), float8_e4m3fnuz=(11, 8), float8_e5m2=(12, 8), float8_e5m2fnuz=(13, 8), float8_e8m0fnu=(14, 8))
    return {getattr(torch, name): code for name, code in codes.items() if hasattr(torch, name)}


_OPAQUE = 3


@lru_cache
def _torch_stream() -> Any:
    """A function of a device's number: its current stream as a number."""
    torch = sys.modules["torch"]
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    return raw or (lambda device: torch.cuda.current_stream(device).cuda_stream)


def torch_memory(tensor: Any) -> tuple[int, tuple[int, ...], tuple[int, ...], int, int, int]:
    """Returns a tensor's address, shape, strides in elements, device, and the code and bits of its type."""
    code, bits = _torch_types().get(tensor.dtype, (_OPAQUE, 8 * tensor.element_size()))
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.get_device(), code, bits


def launch_memory(library: str, device: int, shape: tuple[int, ...] | None, workspace: int) -> tuple[Any, int, Any, int, int]:
    """Returns a float32 array of this shape (None for None) and its address, the same of a workspace, and the current stream.

    Both are made in the order of that stream, so that the workspace may be forgotten as soon as the kernels are launched.
    """
    if library == "torch":
        torch = sys.modules["torch"]
        result = None if shape is None else torch.empty(shape, dtype=torch.float32, device=device)
        space = torch.empty(workspace, dtype=torch.uint8, device=device)
        address = 0 if result is None else result.data_ptr()
        return result, address, space, space.data_ptr(), _torch_stream()(device)
    cupy = sys.modules["cupy"]
    with cupy.cuda.Device(device):
        result = None if shape is None else cupy.empty(shape, cupy.float32)
        space = cupy.empty(workspace, cupy.uint8)
        address = 0 if result is None else result.data.ptr
        return result, address, space, space.data.ptr, cupy.cuda.get_current_stream().ptr


def converted(library: str, array: Any, integers: bool) -> Any:
    """Returns float32 values (or int32) of an array, side by side. Integers that int32 has not become -1 or the largest one."""
    least, most = -1, 2**31 - 1  # no expert has either number
    if library == "torch":
        torch = sys.modules["torch"]
        values = array.detach()
        if integers:
            return values.to(torch.int64).clamp(least, most).to(torch.int32).contiguous()
        return values.to(torch.float32).contiguous()
    cupy = sys.modules["cupy"]
    with array.device:
        if integers:
            return cupy.ascontiguousarray(cupy.clip(array.astype(cupy.int64), least, most), cupy.int32)
        return cupy.ascontiguousarray(array, cupy.float32)
