#!/usr/bin/env python3
"""An importance matrix of one model and one text by the machines of a Ray cluster (pip install ray).

  imatrix_ray.py MODEL TEXT OUT --chunks 2000 [--parts 8] [--address auto] [-- OPTION...]

Each task collects a part of the chunks, and the driver merges them. The result has the bytes of one machine's run with
--chunks 0:CHUNKS. MODEL and TEXT are the same files on every machine; OPTION: of quantal-imatrix, but not --hessian. Without
--address, tasks run on this machine.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import ray


@ray.remote(max_retries=3)
def collect(command, first, last):
    """The bytes of the importance matrix of chunks [first, last)."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "part.gguf")
        done = subprocess.run([*command, "-o", str(out), "--chunks", f"{first}:{last}"], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"chunks {first}:{last}: {done.stderr.strip()}")
        return out.read_bytes()


def split(arguments):
    """What comes before and after --."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("out")
    parser.add_argument("--chunks", type=int, required=True, help="chunks of the text, at most as many as it has")
    parser.add_argument("--parts", type=int, default=0, help="tasks; 0: one for every machine")
    parser.add_argument("--cpus", type=int, default=0, help="processors that a task asks for; 0: those of a machine")
    parser.add_argument("--address", help="of the cluster")
    parser.add_argument("--imatrix", default=os.environ.get("QUANTAL_IMATRIX", "quantal-imatrix"), help="the program")
    own, options = split(sys.argv[1:])
    args = parser.parse_args(own)
    if any(option.startswith("--hessian") for option in options):
        parser.error("--hessian: not for parts")
    ray.init(address=args.address or "local")
    machines = [node for node in ray.nodes() if node["Alive"]]
    parts = min(args.parts or len(machines), args.chunks)
    cpus = args.cpus or int(min(node["Resources"].get("CPU", 1) for node in machines))
    bounds = [args.chunks * i // parts for i in range(parts + 1)]
    command = [args.imatrix, "-m", os.path.abspath(args.model), "-f", os.path.abspath(args.text), "--stream", *options]
    tasks = [collect.options(num_cpus=cpus).remote(command, a, b) for a, b in zip(bounds, bounds[1:])]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, task in enumerate(tasks):
            files.append(pathlib.Path(folder, f"part-{i}.gguf"))
            files[-1].write_bytes(ray.get(task))
        subprocess.run([args.imatrix, "--in-file", *map(str, files), "-o", args.out], check=True)


if __name__ == "__main__":
    main()
