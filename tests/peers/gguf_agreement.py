#!/usr/bin/env python3
"""The numpy decoders of PyPI's gguf package read our file and decode every type they know to the same bits.

Usage: gguf_agreement.py WRITE_FORMATS. Exit status 77: the package is missing and nothing was tested.
"""
import os
import subprocess
import sys
import tempfile

try:
    import gguf
    import numpy as np
except ImportError as e:
    print(f"skipped: {e}; 'scripts/setup --tests' installs gguf into .deps/python")
    sys.exit(77)


def main(writer: str) -> int:
    ids = [str(t.value) for t in gguf.GGMLQuantizationType]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "formats.gguf")
        names = subprocess.run([writer, path, *ids], check=True, capture_output=True, text=True).stdout.split()
        tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
        failures, tested = [], 0
        for name in names:
            t = tensors[name]
            ours = np.array(tensors[name + ".decoded"].data, dtype=np.float32).reshape(-1)
            try:
                theirs = gguf.dequantize(t.data, t.tensor_type)
            except NotImplementedError:
                print(f"{name}: the package cannot decode it")
                continue
            theirs = np.asarray(theirs, dtype=np.float32).reshape(-1)
            tested += 1
            different = int(np.count_nonzero(ours != theirs))  # -0 equals 0: they do not keep its sign everywhere
            if different or ours.size != theirs.size:
                failures.append(f"{name}: {different} of {ours.size} values differ")
    for f in failures:
        print(f)
    print(f"{tested} types compared, {len(failures)} differ (gguf of {len(ids)} types)")
    return 1 if failures or tested < 20 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
