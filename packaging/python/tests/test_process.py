"""Threads, forks, Ctrl-C and memory of the whole process."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
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
        "import numpy, quantal, sys\n"
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
        assert child.wait(60) == 42


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


def test_references_are_given_back(rng: np.random.Generator) -> None:
    w = rng.standard_normal((4, 256), dtype=np.float32)
    out = np.empty((4, 256), np.float32)
    q = quantal.quantize(w, "q4_K")
    counts = [sys.getrefcount(o) for o in (w, out, None.__class__)]
    for _ in range(50):
        quantal.quantize(w, "q4_K")
        q.dequantize(out)
        quantal.error(w, q)
    assert [sys.getrefcount(o) for o in (w, out, None.__class__)] == counts
