"""GGUF files: arrays that are not copied and outlive the file, keys with their types, whole files or none."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantal


@pytest.fixture
def tensors(rng: np.random.Generator) -> dict[str, Any]:
    plain = {f"t.{n}": rng.integers(-9, 9, (2, 3)).astype(n) for n in ("int8", "int16", "int32", "int64", "float64")}
    quantized = {
        f"blk.0.{f.name}.weight": quantal.quantize(rng.standard_normal((3, 512), dtype=np.float32), f)
        for f in quantal.formats()
        if f.is_weight
    }
    floats = {"half": np.ones((2, 32), np.float16), "one": np.float32([1.5]), "deep": np.ones((2, 3, 4, 32), np.float32)}
    return {**plain, **quantized, **floats}


def test_round_trip(tensors: dict[str, Any], tmp_path: Path) -> None:
    quantal.write_gguf(tmp_path / "m.gguf", tensors)
    with quantal.GGUF(tmp_path / "m.gguf") as g:
        assert g.keys() == list(tensors) == list(g) and len(g) == len(tensors)
        for name, want in tensors.items():
            found = g[name]
            assert name in g and g.shape(name) == found.shape == want.shape
            if isinstance(want, quantal.QuantizedArray) and isinstance(found, quantal.QuantizedArray):
                assert (found.format, found.tobytes()) == (want.format, want.tobytes())
            elif not isinstance(want, quantal.QuantizedArray):
                assert found.dtype == want.dtype and (found == want).all() and not found.flags.writeable
        assert g.quantized("one").dequantize()[0] == 1.5
    with pytest.raises(ValueError, match="closed"):
        g.keys()


def test_arrays_outlive_the_file(tmp_path: Path, rng: np.random.Generator) -> None:
    want = rng.standard_normal((64, 256), dtype=np.float32)
    q = quantal.quantize(want, "q5_K")
    path = tmp_path / "m.gguf"
    quantal.write_gguf(path, {"a": want, "q": q})
    g = quantal.GGUF(path)
    address = g["a"].__array_interface__["data"][0]
    assert g["a"].__array_interface__["data"][0] == address, "two arrays of one mapping"
    a, part, data = g["a"][3:5], g.quantized("q")[7], g.quantized("q").data
    g.close()
    del g
    path.unlink()
    gc.collect()
    assert (a == want[3:5]).all() and a.__array_interface__["data"][0] == address + 3 * 1024
    assert part.tobytes() == q[7].tobytes() and (data == q.data).all()
    assert str(path) in Path("/proc/self/maps").read_text()
    del a, part, data
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_keys_have_types(tmp_path: Path) -> None:
    meta = quantal.Metadata({"a": 1, "b": -1, "c": 2**40, "d": 0.5, "e": True, "f": "ü", "g": [1, 2], "h": ["x", "y"]})
    meta["i"] = np.uint8(3)
    meta["j"] = np.arange(3, dtype=np.uint64)
    meta["k"] = [1, 2.5]
    meta.set("l", [True, False], "[bool]")
    meta.set("m", 7, "u16")
    meta["m"] = 8
    types = [meta.type(k) for k in meta]
    assert types == ["u32", "i32", "i64", "f32", "bool", "str", "[i32]", "[str]", "u8", "[u64]", "[f32]", "[bool]", "u16"]
    quantal.write_gguf(tmp_path / "m.gguf", {}, meta)
    read = quantal.GGUF(tmp_path / "m.gguf").metadata
    assert [read.type(k) for k in read] == types and read["f"] == "ü" and read.get("z", 5) == 5 and read["m"] == 8
    with pytest.raises(TypeError, match="read-only"):
        read["a"] = 2
    changed = read.copy()
    del changed["a"]
    assert "a" not in changed and "a" in read and dict(changed)["c"] == 2**40
    for key, value, kind in [("n", 300, "u8"), ("n", "x", "u8"), ("n", 1, "[u8]"), ("n", [1], "u8"), ("n", 1, "u7"), ("", 1, "u8")]:
        with pytest.raises(ValueError):
            meta.set(key, value, kind)
    with pytest.raises(TypeError):
        meta["n"] = object()
    with pytest.raises(KeyError):
        meta["n"]


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError, match="stop"), quantal.GGUFWriter(path, [("a", "f32", 4)]) as w:
        w.write(np.ones(4, np.float32))
        raise RuntimeError("stop")
    with pytest.raises(OSError, match="'a' is incomplete"), quantal.GGUFWriter(path, [("a", "f32", 4)]) as w:
        w.write(np.ones(3, np.float32))
    with pytest.raises(OSError, match="more tensor data"), quantal.GGUFWriter(path, [("a", "f32", 4)]) as w:
        w.write(np.ones(5, np.float32))
    for plan, says in [
        ([("a", "q4_K", 100)], r"q4_K cannot hold the shape \(100,\)"),
        ([("a", "f32", 1), ("a", "f32", 1)], "duplicate"),
        ([("a" * 64, "f32", 1)], "63 bytes"),
        ([("a", "f32", (1,) * 5)], "4 dimensions"),
    ]:
        with pytest.raises(ValueError, match=says):
            quantal.GGUFWriter(path, plan)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4))
def test_damaged_files(tmp_path_factory: Any, cut: float, flips: list[tuple[float, int]]) -> None:
    path = tmp_path_factory.mktemp("damaged") / "m.gguf"
    quantal.write_gguf(path, {"a": np.ones((2, 32), np.float32)}, {"k": [1, 2, 3], "s": "text"})
    data = bytearray(path.read_bytes())
    for at, value in flips:
        data[int(at * (len(data) - 1))] = value
    path.write_bytes(data[: int(cut * len(data))])
    try:
        g = quantal.GGUF(path)
        dict(g.metadata)
        for name in g:
            g.type(name), g[name]
    except (ValueError, KeyError) as refused:
        assert str(refused)


def test_pypi_reads_it(tmp_path: Path, tensors: dict[str, Any]) -> None:
    gguf = pytest.importorskip("gguf")
    known = {t.value for t in gguf.GGMLQuantizationType}
    mine = {n: t for n, t in tensors.items() if not isinstance(t, quantal.QuantizedArray) or t.format.gguf_id in known}
    mine = {n: t for n, t in mine.items() if not n.startswith("blk") or "_0_" not in n}
    names = {t.value: t.name.lower() for t in gguf.GGMLQuantizationType}
    mine = {n: t for n, t in mine.items() if not isinstance(t, quantal.QuantizedArray) or names[t.format.gguf_id] == t.format.name.lower()}
    quantal.write_gguf(tmp_path / "m.gguf", mine, {"general.architecture": "llama"})
    read = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert read.keys() == mine.keys()
    for name, tensor in mine.items():
        raw = tensor.tobytes() if isinstance(tensor, quantal.QuantizedArray) else np.ascontiguousarray(tensor).tobytes()
        assert read[name].data.tobytes() == raw


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "ü 文件") + b"\xff\xfe.gguf"
    quantal.write_gguf(path, {"ö": np.ones(4, np.float32)})
    g = quantal.GGUF(path)
    assert os.fsencode(g.path) == path and repr(g).startswith("GGUF('") and g.keys() == ["ö"]
    with pytest.raises(KeyError, match=r"ü 文件.*xff.*no tensor 'x'"):
        g["x"]
    with pytest.raises(FileNotFoundError) as missing:
        quantal.GGUF(path + b"x")
    assert os.fsencode(missing.value.filename) == path + b"x"
    Path(os.fsdecode(path)).write_bytes(b"GGUF" + b"\xff" * 100)
    for read in (quantal.GGUF, quantal.Imatrix.load, quantal.QuantizedArray.load):
        with pytest.raises(ValueError, match=r"xff.*version"):
            read(path)
    with pytest.raises(OSError, match="cannot create"):
        quantal.write_gguf(path + b"/a", {})
    for name, error in ((3, TypeError), ("\udcff", ValueError)):
        with pytest.raises(error, match="name.*no text"):
            quantal.write_gguf(tmp_path / "m", {name: np.ones(4, np.float32)})  # type: ignore[dict-item]
    quantal.write_gguf(tmp_path / "m", {"name": np.ones(4, np.float32)})
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes().replace(b"name", b"n\xffme"))
    with pytest.raises(ValueError, match=r"n.*xffme.* is no UTF-8"):
        list(quantal.GGUF(tmp_path / "m"))
