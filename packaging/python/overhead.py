"""What a call from Python costs over the C++ call, in microseconds, from the smallest sizes to large ones, on one thread.

overhead.py BUILD: a folder with libquantal built. --cuda: launches on a device instead, with libquantal_cuda. The same calls are timed in this process from Python and, through
overhead.c, in a loop of C; both in turns, so that what else the machine does meets both. Of each the smallest and the
median of the turns are reported. Where a call takes milliseconds, turns differ by more than the overhead: "noise" is the
distance of the quartiles of the C++ call.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import quantal

HERE = Path(__file__).resolve().parent
FORMAT = "q8_0"


def timing_library(build: Path, name: str, libraries: list[str], functions: list[str]) -> ctypes.CDLL:
    library = next(iter(sorted(build.rglob("libquantal.so")))).parent
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "overhead.so"
        include = HERE.parents[1] / "include"
        command = ["cc", "-std=c11", "-O2", "-shared", "-fPIC", f"-I{include}", HERE / name, "-o", made]
        subprocess.run([*command, f"-L{library}", *libraries, f"-Wl,-rpath,{library}"], check=True)
        loaded = ctypes.CDLL(str(made))
    for function in functions:
        getattr(loaded, function).restype = ctypes.c_double
    return loaded


def python_time(call: Callable[[], Any], calls: int) -> float:
    began = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return (time.perf_counter_ns() - began) / calls


def address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.__array_interface__["data"][0])


def compared(
    name: str, size: str, timed: Callable[[int], float], native: Callable[[int], float], turns: int, most: int = 4000
) -> None:
    timed(1)
    calls = min(most, max(1, int(2e6 / native(1))))
    pairs = np.array([(timed(calls), native(calls)) for _ in range(turns)]) / 1e3
    assert (pairs > 0).all(), name
    best, middle = pairs.min(0), np.median(pairs, 0)
    low, high = np.percentile(pairs[:, 1], [25, 75])
    over = np.median(pairs[:, 0] - pairs[:, 1])
    print(f"{name:<14}{size:<20}{best[1]:11.2f}{best[0] - best[1]:11.2f}{middle[1]:11.2f}{over:11.2f}{high - low:9.2f}", flush=True)


i64 = ctypes.c_int64


def on_device(arguments: argparse.Namespace) -> None:
    import torch

    native = timing_library(arguments.build, "overhead_cuda.c", ["-lquantal_cuda", "-lquantal"], ["time_cuda_mul_mat"])
    number = quantal.format(FORMAT).gguf_id
    workspace = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    print(f"{FORMAT}, {torch.cuda.get_device_name()}, launches; us  C++, smallest    over it C++, median    over it    noise")
    for rows, cols, n in [(64, 256, 1), (1024, 1024, 1), (4096, 4096, 1), (4096, 4096, 64), (8192, 8192, 512)]:
        weights = torch.randn(rows, cols)
        memory = torch.from_numpy(quantal.quantize(weights, FORMAT).data.copy()).cuda()
        q = quantal.QuantizedArray.from_buffer(memory, FORMAT, (rows, cols))
        x, out = torch.randn(n, cols, device="cuda"), torch.empty(n, rows, device="cuda")
        blocks, *pointers = (ctypes.c_void_p(t.data_ptr()) for t in (memory, x, out, workspace))

        def native_time(calls: int) -> float:
            spent = native.time_cuda_mul_mat(
                number, blocks, i64(rows), i64(cols), pointers[0], i64(n), pointers[1], pointers[2], i64(1 << 28), i64(calls)
            )
            torch.cuda.synchronize()
            return float(spent)

        def waited(call: Callable[[], Any]) -> Callable[[int], float]:
            def timed(calls: int) -> float:
                spent = python_time(call, calls)
                torch.cuda.synchronize()
                return spent

            return timed

        shape = f"{rows}x{cols}, n={n}"
        compared("mul_mat, out", shape, waited(lambda: quantal.mul_mat(q, x, out)), native_time, arguments.turns, 64)
        compared("mul_mat", shape, waited(lambda: quantal.mul_mat(q, x)), native_time, arguments.turns, 64)


def on_cpu(arguments: argparse.Namespace) -> None:
    functions = ["time_mul_mat", "time_dequantize", "time_quantize"]
    native, random = timing_library(arguments.build, "overhead.c", ["-lquantal"], functions), np.random.default_rng(0)
    number = quantal.format(FORMAT).gguf_id
    print(f"{FORMAT}, {quantal.arch()}, one thread; us   C++, smallest    over it C++, median    over it    noise")
    for rows, cols, n in [(1, 32, 1), (64, 256, 1), (1024, 1024, 1), (1024, 1024, 64), (4096, 4096, 1), (4096, 4096, 32)]:
        weights = random.standard_normal((rows, cols), dtype=np.float32)
        x, out = random.standard_normal((n, cols), dtype=np.float32), np.empty((n, rows), np.float32)
        q = quantal.quantize(weights, FORMAT)
        blocks, decoded, encoded = q.data, np.empty_like(weights), np.empty(q.nbytes, np.uint8)
        shape = f"{rows}x{cols}"
        compared(
            "mul_mat", f"{shape}, n={n}", lambda calls: python_time(lambda: quantal.mul_mat(q, x, out, threads=1), calls),
            lambda calls: native.time_mul_mat(number, address(blocks), i64(rows), i64(cols), address(x), i64(n), address(out), i64(calls)),
            arguments.turns,
        )  # fmt: skip
        if n > 1:
            continue
        compared(
            "dequantize", shape, lambda calls: python_time(lambda: q.dequantize(decoded, threads=1), calls),
            lambda calls: native.time_dequantize(number, address(blocks), i64(rows), i64(cols), address(decoded), i64(calls)),
            arguments.turns,
        )  # fmt: skip
        compared(
            "quantize", shape, lambda calls: python_time(lambda: quantal.quantize(weights, FORMAT, threads=1), calls),
            lambda calls: native.time_quantize(number, address(weights), i64(rows), i64(cols), address(encoded), i64(calls)),
            arguments.turns,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path)
    parser.add_argument("--turns", type=int, default=41)
    parser.add_argument("--cuda", action="store_true")
    arguments = parser.parse_args()
    on_device(arguments) if arguments.cuda else on_cpu(arguments)


if __name__ == "__main__":
    main()
