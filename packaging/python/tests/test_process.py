"""Threads, forks, Ctrl-C and memory of the whole process."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import quantal


def test_many_threads_of_python(rng: np.random.Generator) -> None:
    w = rng.standard_normal((64, 512), dtype=np.float32)
    x = rng.standard_normal((4, 512), dtype=np.float32)
    want = quantal.quantize(w, "iq4_xs", threads=1)
    product = quantal.mul_mat(want, x)

    def work(_: int) -> bool:
        q = quantal.quantize(w, "iq4_xs", threads=3)
        return q.tobytes() == want.tobytes() and bool((quantal.mul_mat(q, x, threads=2) == product).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


def test_the_gil_is_released(rng: np.random.Generator) -> None:
    w = rng.standard_normal((1024, 2048), dtype=np.float32)
    done, counted = threading.Event(), []

    def count() -> None:
        n = 0
        while not done.is_set():
            n += 1
            time.sleep(0)
        counted.append(n)

    other = threading.Thread(target=count)
    other.start()
    quantal.quantize(w, "q2_K", threads=1)
    done.set()
    other.join()
    assert counted[0] > 1


def test_a_forked_process_has_threads_of_its_own(rng: np.random.Generator) -> None:
    w = rng.standard_normal((64, 512), dtype=np.float32)
    want = quantal.quantize(w, "q4_K", threads=3).tobytes()  # the pool is there before the fork
    child = os.fork()
    if child == 0:
        same = all(quantal.quantize(w, "q4_K", threads=n).tobytes() == want for n in (3, 2, 1))
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert quantal.quantize(w, "q4_K", threads=3).tobytes() == want


@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_ends_a_long_quantization(threads: int) -> None:
    program = (
        "import numpy, quantal, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs of shells ignore it
        "w = numpy.broadcast_to(numpy.random.default_rng(0).standard_normal(1024), (1 << 20, 1024))\n"
        "print('ready', flush=True)\n"
        "try:\n"
        f"    quantal.quantize(w, 'iq2_kt', threads={threads})\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(42)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        try:
            assert child.wait(60) == 42
        finally:
            child.kill()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_nothing_leaks(tmp_path: Path, rng: np.random.Generator) -> None:
    w = rng.standard_normal((64, 1024), dtype=np.float32)
    x = rng.standard_normal((8, 1024), dtype=np.float32)

    def once() -> None:
        q = quantal.quantize(w, "q4_K", np.ones(1024))
        q.save(tmp_path / "a.gguf")
        g = quantal.GGUF(tmp_path / "a.gguf")
        g["array"].dequantize()
        list(q), q.data, x @ q.T, q @ x.T, quantal.error(w, q), dict(g.metadata)
        quantal.Imatrix.from_activations("a", x).lookup("a", (4, 1024))
        for bad in (w[:, :100], w.astype(int), None):
            try:
                quantal.quantize(bad, "q4_K")
            except (ValueError, TypeError):
                pass

    for _ in range(20):
        once()
    gc.collect()
    before = resident()
    for _ in range(200):
        once()
    gc.collect()
    assert resident() - before < 4 << 20, "200 rounds hold 100 MiB"


def every_call(tmp_path: Path, rng: np.random.Generator) -> tuple[list[object], list[Callable[[], object]]]:
    """Objects that are handed in, and calls with them: those that work, and those that raise."""
    w, x, y = rng.standard_normal((4, 256), dtype=np.float32), np.ones((2, 256), np.float32), np.empty((2, 4), np.float32)
    out, importance, raw = np.empty((4, 256), np.float32), np.ones(256), quantal.quantize(w, "q4_K").tobytes()
    halves, flipped, wrong, ids = w.astype(np.float16), w[:, ::-1], np.ones((4, 100), np.float32), np.zeros((2, 1), np.int64)
    q = quantal.QuantizedArray.from_buffer(raw, "q4_K", (4, 256))
    experts = quantal.QuantizedArray.from_buffer(raw, "q4_K", (1, 4, 256))
    quantal.write_gguf(tmp_path / "m.gguf", {"q": q, "w": w}, {"key": [1, 2], "text": "x"})
    g, imatrix = quantal.GGUF(tmp_path / "m.gguf"), quantal.Imatrix.from_activations("w", w)
    metadata = g.metadata
    good: list[Callable[[], object]] = [
        lambda: quantal.quantize(w, "q4_K", importance),
        lambda: quantal.quantize(halves, "q4_0"),
        lambda: quantal.quantize(flipped, "q4_0", threads=2),
        lambda: quantal.dequantize(raw, "q4_K", (4, 256), out),
        lambda: quantal.QuantizedArray.from_buffer(raw, "q4_K", (4, 256))[1:3].data[0],
        lambda: (q.dequantize(out), q.T, q[1], list(q), q.data, repr(q), len(q)),
        lambda: (quantal.mul_mat(q, x, y), x @ q.T, q @ x.T, quantal.mul_mat(q, x, activation="exact")),
        lambda: quantal.mul_mat_id(experts, x, ids),
        lambda: quantal.error(w, q, importance),
        lambda: (g["q"], g["w"], g.keys(), list(g), "q" in g, g.quantized("w"), dict(metadata), metadata.copy()),
        lambda: (imatrix.lookup("w", (4, 256)), imatrix.sums("w"), imatrix.copy(), imatrix == imatrix, list(imatrix)),
        lambda: (pickle.loads(pickle.dumps(q)), copy.copy(q)),
    ]
    bad: list[Callable[[], object]] = [
        lambda: quantal.quantize(wrong, "q4_K"),
        lambda: quantal.quantize(w, "q4_K", wrong),
        lambda: quantal.quantize(ids, "q4_K"),
        lambda: quantal.quantize(w, "nothing"),
        lambda: quantal.quantize(None, "q4_K"),  # type: ignore[arg-type]
        lambda: quantal.quantize(w * np.float32(np.nan), "q4_K"),
        lambda: quantal.dequantize(raw, "q4_K", (5, 256), out),
        lambda: quantal.mul_mat(q, wrong),
        lambda: quantal.mul_mat(q, x, wrong),
        lambda: quantal.mul_mat_id(experts, x, ids + 7),
        lambda: quantal.error(w, x),
        lambda: q[99],
        lambda: g["nothing"],
        lambda: metadata["nothing"],
        lambda: quantal.GGUF(tmp_path / "nothing"),
        lambda: imatrix.accumulate("w", wrong),
        lambda: quantal.QuantizedArray.load(tmp_path / "m.gguf"),
    ]

    def raises(call: Callable[[], object]) -> Callable[[], object]:
        def caught() -> None:
            try:
                call()
            except (ValueError, TypeError, KeyError, IndexError, OSError):
                return
            raise AssertionError("no exception")

        return caught

    held = [w, x, y, out, importance, raw, halves, flipped, wrong, ids, q, experts, g, imatrix, metadata]
    return held, good + [raises(call) for call in bad]


def test_references_are_given_back(tmp_path: Path, rng: np.random.Generator) -> None:
    held, calls = every_call(tmp_path, rng)
    for call in calls:
        call()
        gc.collect()
        counts, live = [sys.getrefcount(o) for o in held], len(gc.get_objects())
        for _ in range(1000):
            call()
        gc.collect()
        assert [sys.getrefcount(o) for o in held] == counts
        assert abs(len(gc.get_objects()) - live) < 20


def test_python_memory_does_not_grow(tmp_path: Path, rng: np.random.Generator) -> None:
    _, calls = every_call(tmp_path, rng)
    for _ in range(50):
        for call in calls:
            call()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(300):
        for call in calls:
            call()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 64 << 10, "a reference of each call would be 300 objects for each of 29 calls"


def test_a_small_call_has_a_small_price() -> None:
    q = quantal.quantize(np.ones((1, 32), np.float32), "q8_0")
    x, y, decoded = np.ones((1, 32), np.float32), np.empty((1, 1), np.float32), np.empty((1, 32), np.float32)
    for call in (lambda: quantal.mul_mat(q, x, y), lambda: q.dequantize(decoded), lambda: quantal.quantize(x, "q8_0")):
        times = []
        for _ in range(2000):
            began = time.perf_counter_ns()
            call()
            times.append(time.perf_counter_ns() - began)
        assert min(times) < 10_000, "nanoseconds; overhead.py compares with the C++ call at all sizes"
