"""A run through the kernels, for emulators of old CPUs: prints the instruction set that was used."""

import numpy as np

import quantal

random = np.random.default_rng(0)
weights = random.standard_normal((16, 512)).astype(np.float32)
x = random.standard_normal((3, 512)).astype(np.float32)
for name in ("q4_0", "q4_K", "iq4_xs", "iq2_xxs", "mxfp4"):
    q = quantal.quantize(weights, name, threads=1)
    want = x @ q.dequantize().T
    error = np.linalg.norm(quantal.mul_mat(q, x, activation="exact") - want) / np.linalg.norm(want)
    assert error < 1e-5, (name, error)
    assert np.linalg.norm(x @ q.T - want) < 0.02 * np.linalg.norm(want), name
print("ran on", quantal.arch())
