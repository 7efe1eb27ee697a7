"""What a call from Python costs over the C++ call, in microseconds: the smallest products, on one thread.

The C++ call of one block takes well under a microsecond, so that its time here is the overhead; for larger products the
same call from C++ is timed by quantal_bench.
"""

from __future__ import annotations

import timeit

import numpy as np

import quantal


def microseconds(call: object) -> float:
    timer = timeit.Timer("call()", globals={"call": call})
    number, _ = timer.autorange()
    return 1e6 * min(timer.repeat(9, number)) / number


def main() -> None:
    q = quantal.quantize(np.ones((1, 32), np.float32), "q8_0")
    raw, x, out = q.tobytes(), np.ones((1, 32), np.float32), np.empty((1, 1), np.float32)
    experts = quantal.QuantizedArray.from_buffer(raw, "q8_0", (1, 1, 32))
    ids = np.zeros((1, 1), np.int32)
    calls = {
        "mul_mat": lambda: quantal.mul_mat(q, x),
        "mul_mat, out": lambda: quantal.mul_mat(q, x, out),
        "x @ q.T": lambda: x @ q.T,
        "mul_mat_id": lambda: quantal.mul_mat_id(experts, x, ids),
        "quantize": lambda: quantal.quantize(x, "q8_0"),
        "dequantize": lambda: quantal.dequantize(raw, "q8_0", (1, 32)),
        "row of an array": lambda: q[0],
    }
    print(f"{'call':<18}{'us':>8}   ({quantal.arch()})")
    for name, call in calls.items():
        print(f"{name:<18}{microseconds(call):8.2f}")


if __name__ == "__main__":
    main()
