"""Memory and streams of CUDA devices, by the library that an array is of: torch or cupy."""

from __future__ import annotations

import sys
from typing import Any


def launch_memory(library: str, device: int, shape: tuple[int, ...] | None, workspace: int) -> tuple[Any, int, Any, int, int]:
    """Returns a float32 array of this shape (None for None) and its address, the same of a workspace, and the current stream.

    Both are made in the order of that stream, so that the workspace may be forgotten as soon as the kernels are launched.
    """
    if library == "torch":
        torch = sys.modules["torch"]
        place = torch.device("cuda", device)
        result = None if shape is None else torch.empty(shape, dtype=torch.float32, device=place)
        space = torch.empty(workspace, dtype=torch.uint8, device=place)
        address = 0 if result is None else result.data_ptr()
        return result, address, space, space.data_ptr(), torch.cuda.current_stream(place).cuda_stream
    cupy = sys.modules["cupy"]
    with cupy.cuda.Device(device):
        result = None if shape is None else cupy.empty(shape, cupy.float32)
        space = cupy.empty(workspace, cupy.uint8)
        address = 0 if result is None else result.data.ptr
        return result, address, space, space.data.ptr, cupy.cuda.get_current_stream().ptr


def converted(library: str, array: Any, integers: bool) -> Any:
    """Returns float32 values (or int32) of an array, side by side."""
    if library == "torch":
        torch = sys.modules["torch"]
        return array.detach().to(torch.int32 if integers else torch.float32).contiguous()
    cupy = sys.modules["cupy"]
    with array.device:
        return cupy.ascontiguousarray(array, cupy.int32 if integers else cupy.float32)
