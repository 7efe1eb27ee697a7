"""Arrays on CUDA devices. What needs a device is skipped where there is none, or where the build has no CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import quantal

FORMATS = quantal.cuda_formats()


class Interface:
    """A producer of __cuda_array_interface__ and nothing else."""

    def __init__(self, interface: dict[str, Any], owner: Any = None) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = interface


def interface(address: int, shape: tuple[int, ...], kind: str) -> dict[str, Any]:
    return {"data": (address, False), "shape": shape, "typestr": kind, "version": 3}


def test_blocks_on_a_device_are_not_read_here() -> None:
    memory = np.zeros(144, np.uint8)
    producer = Interface(interface(memory.__array_interface__["data"][0], (144,), "|u1"), memory)
    with pytest.raises(ValueError, match="144 bytes.*q4_K.*288"):
        quantal.QuantizedArray.from_buffer(producer, "q4_K", (1, 512))
    if "q4_K" not in FORMATS:
        with pytest.raises(ValueError, match="no CUDA.*QUANTAL_CUDA=ON|not in this build"):
            quantal.QuantizedArray.from_buffer(producer, "q4_K", (1, 256))
        return
    q = quantal.QuantizedArray.from_buffer(producer, "q4_K", (1, 256))
    assert q.device == "cuda:0" and "cuda:0" in repr(q) and q.nbytes == 144
    for read in (q.tobytes, lambda: q.data, lambda: quantal.error(np.ones((1, 256)), q), lambda: q.save("nowhere")):
        with pytest.raises(TypeError, match=r"cuda:0: use .cpu\(\)"):
            read()
    with pytest.raises((TypeError, RuntimeError), match="x: lies on the CPU|cuda:0"):
        quantal.mul_mat(q, np.ones((1, 256), np.float32))


def test_arrays_on_the_cpu_say_so(rng: np.random.Generator) -> None:
    q = quantal.quantize(rng.standard_normal((2, 256)), "q4_K")
    assert q.device == q[1].device == "cpu" and q.cpu().data.ctypes.data == q.data.ctypes.data
    assert set(FORMATS) <= {f.name for f in quantal.formats()}
    floats = Interface(interface(0, (3, 256), "<f4"))
    for wrong in (lambda: quantal.mul_mat(q, floats), lambda: quantal.quantize(floats, "q4_K")):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match="'bf16' is neither 'q8' nor 'exact'"):
        quantal.mul_mat(q, np.ones((1, 256), np.float32), activation="bf16")


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        ({"strides": (1, 1)}, ValueError, r"2 strides.*\(144,\)"),
        ({"strides": ()}, ValueError, r"0 strides.*\(144,\)"),
        ({"shape": (12, 12), "strides": (1,)}, ValueError, r"1 strides.*\(12, 12\)"),
        ({"shape": (144,), "strides": (1,) * 4096}, ValueError, "4096 strides"),
        ({"shape": (2**61, 8, 9)}, ValueError, "too large"),
        ({"mask": Interface({})}, TypeError, "mask"),
        ({"data": (4096 + 8, False)}, ValueError, r"cuda:0.*16 bytes.*clone\(\)"),
        ({"typestr": "|b1"}, TypeError, "b1"),
        ({"typestr": "<c8"}, TypeError, "c8"),
    ],
)
def test_refused_without_a_look_at_the_memory(more: dict[str, Any], error: type[Exception], says: str) -> None:
    producer = Interface({**interface(4096, (144,), "|u1"), **more})
    with pytest.raises(error, match=says):
        quantal.QuantizedArray.from_buffer(producer, "q4_K", (1, 256))


@pytest.mark.skipif("q8_0" not in FORMATS, reason="a build without CUDA, or without q8_0")
def test_operands_refused_without_a_look_at_the_memory() -> None:
    def at(shape: tuple[int, ...], kind: str, read_only: bool = False) -> Interface:
        return Interface({**interface(4096, shape, kind), "data": (4096, read_only)})

    q = quantal.QuantizedArray.from_buffer(at((68,), "|u1"), "q8_0", (2, 32))
    experts = quantal.QuantizedArray.from_buffer(at((68,), "|u1"), "q8_0", (2, 1, 32))
    x, ids = at((3, 32), "<f4"), at((3, 1), "<i4")
    for wrong, error, says in [
        (lambda: quantal.mul_mat(q[1:], x), ValueError, r"q8_0 \(1, 32\) on cuda:0.*16 bytes"),
        (lambda: quantal.mul_mat_id(experts[1:], x, ids), ValueError, "16 bytes"),
        (lambda: quantal.mul_mat(q, at((3, 32), "<i4")), TypeError, "x: dtype.*not float32"),
        (lambda: quantal.mul_mat(q, at((3, 31), "<f4")), ValueError, r"mul_mat.*\(3, 31\)"),
        (lambda: quantal.mul_mat_id(experts, at((2, 32), "<f4"), ids), ValueError, r"mul_mat_id.*\(2, 32\), wanted \(3, 32\)"),
        (lambda: quantal.mul_mat_id(experts, x, at((3, 1), "<f4")), TypeError, "ids: not integers"),
        (lambda: quantal.mul_mat(q, x, at((3, 2), "<f4", read_only=True)), TypeError, "out: .*read-only"),
        (lambda: quantal.mul_mat_id(experts, x, ids, at((3, 1, 1), "<f4", read_only=True)), TypeError, "out: .*read-only"),
        (lambda: q.dequantize(at((2, 32), "<f4", read_only=True)), TypeError, "out: .*read-only"),
    ]:
        with pytest.raises(error, match=says):
            wrong()


try:
    import torch

    HAS_DEVICE = bool(FORMATS) and torch.cuda.is_available()
except ImportError:
    HAS_DEVICE = False

on_device = pytest.mark.skipif(not HAS_DEVICE, reason="no CUDA device, or a build without CUDA")
BOUNDS = {"bf16": 6e-3, "q8": 2e-2, "fp8": 8e-2}


def made(shape: tuple[int, ...], name: str) -> tuple[quantal.QuantizedArray, quantal.QuantizedArray]:
    """Weights on the CPU, and the same on the device."""
    weights = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
    q = quantal.quantize(weights, name)
    blocks = torch.from_numpy(q.data.copy()).cuda()
    before = torch.cuda.memory_allocated()
    there = quantal.QuantizedArray.from_buffer(blocks, name, shape)
    assert torch.cuda.memory_allocated() == before, "blocks are not copied"
    return q, there


def close(found: Any, want: np.ndarray, bound: float) -> bool:
    return bool(np.linalg.norm(found.cpu().numpy() - want) < bound * np.linalg.norm(want))


@on_device
@pytest.mark.parametrize("name", FORMATS)
def test_products_on_the_device(name: str) -> None:
    q, there = made((96, 1024), name)
    decoded = q.dequantize()
    assert (there.dequantize().cpu().numpy() == decoded).all() and there.dequantize().is_cuda
    assert there.cpu().tobytes() == q.tobytes() and there.cpu().device == "cpu"
    for n in (1, 5, 64, 300):
        x = torch.randn(n, 1024, device="cuda")
        want = x.cpu().numpy() @ decoded.T
        for activation, bound in BOUNDS.items():
            y = quantal.mul_mat(there, x, activation=activation)
            assert y.is_cuda and y.dtype == torch.float32 and y.shape == (n, 96) and close(y, want, bound), (n, activation)
    part = there[32:64]
    assert close(quantal.mul_mat(part, x, activation="bf16"), want[:, 32:64], 6e-3)


@on_device
@pytest.mark.parametrize("name", FORMATS[:1])
def test_however_x_lies(name: str) -> None:
    q, there = made((64, 512), name)
    x = torch.randn(2, 3, 512, device="cuda")
    want = x.cpu().numpy() @ q.dequantize().T
    wide = torch.zeros(6, 1000, device="cuda")
    wide[:, 8:520] = x.reshape(6, 512)
    for given in (x, x.double(), x.transpose(0, 1).contiguous().transpose(0, 1), x.flip(-1).flip(-1)):
        assert close(quantal.mul_mat(there, given, activation="bf16"), want, 6e-3)
    assert close(quantal.mul_mat(there, x.to(torch.bfloat16), activation="bf16"), want, 1e-2)
    assert close(x @ there.T, want, 2e-2) and close((there @ x.transpose(1, 2)).transpose(1, 2), want, 2e-2)
    out = torch.full((6, 100), 7.0, device="cuda")
    assert quantal.mul_mat(there, wide[:, 8:520], out[:, 4:68]) is not None
    assert close(out[:, 4:68], want.reshape(6, 64), 2e-2) and bool((out[:, :4] == 7).all() and (out[:, 68:] == 7).all())
    assert quantal.mul_mat(there, x[:0]).shape == (0, 3, 64)
    assert close(quantal.mul_mat(there, x[0, 0]), want[0, 0], 2e-2)


@on_device
@pytest.mark.parametrize("name", FORMATS[:1])
def test_other_producers(name: str) -> None:
    q, there = made((64, 512), name)
    x = torch.randn(5, 512, device="cuda")
    want, out = x.cpu().numpy() @ q.dequantize().T, torch.zeros(5, 64, device="cuda")
    torch.cuda.synchronize()
    plain = Interface(interface(x.data_ptr(), (5, 512), "<f4"), x)
    with pytest.raises(ValueError, match="out: needed"):
        quantal.mul_mat(there, plain)
    result = Interface(interface(out.data_ptr(), (5, 64), "<f4"), out)
    assert quantal.mul_mat(there, plain, result) is result
    torch.cuda.synchronize()
    assert close(out, want, 2e-2)
    cupy = pytest.importorskip("cupy")
    blocks = cupy.asarray(q.data)
    y = quantal.mul_mat(quantal.QuantizedArray.from_buffer(blocks, name, (64, 512)), cupy.asarray(x.cpu().numpy()))
    assert isinstance(y, cupy.ndarray) and close(torch.from_dlpack(y), want, 2e-2)
    assert (cupy.asnumpy(quantal.QuantizedArray.from_buffer(blocks, name, (64, 512)).dequantize()) == q.dequantize()).all()


@on_device
@pytest.mark.parametrize("name", FORMATS[:1])
def test_the_current_stream(name: str) -> None:
    q, there = made((64, 512), name)
    x, stream = torch.zeros(4, 512, device="cuda"), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        quantal.mul_mat(there, x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # captures what is launched on the current stream, and nothing else may be
        y = quantal.mul_mat(there, x)
    for seed in range(3):
        torch.manual_seed(seed)
        x.copy_(torch.randn(4, 512, device="cuda"))
        graph.replay()
        assert close(y, x.cpu().numpy() @ q.dequantize().T, 2e-2)


@on_device
@pytest.mark.parametrize("name", FORMATS[:1])
def test_streams_of_producers(name: str) -> None:
    q, _ = made((4, 32, 512), name)
    x, late = torch.randn(3, 512, device="cuda"), torch.cuda.Stream()
    blocks, ids = torch.zeros(q.nbytes, dtype=torch.uint8, device="cuda"), torch.full((3, 2), -1, dtype=torch.int32, device="cuda")
    out = torch.zeros(3, 2, 32, device="cuda")
    source, chosen = torch.from_numpy(q.data.copy()).cuda().reshape(-1), torch.tensor([[0, 3], [1, 1], [2, 0]], device="cuda")

    def on_late(tensor: Any, kind: str) -> Interface:
        return Interface({**interface(tensor.data_ptr(), tuple(tensor.shape), kind), "stream": late.cuda_stream}, tensor)

    torch.cuda.synchronize()
    with torch.cuda.stream(late):
        torch.cuda._sleep(1 << 28)
        blocks.copy_(source)
    there = quantal.QuantizedArray.from_buffer(on_late(blocks, "|u1"), name, (4, 32, 512))
    with torch.cuda.stream(late):
        torch.cuda._sleep(1 << 28)
        ids.copy_(chosen)
        out.fill_(7)
    quantal.mul_mat_id(there, x, on_late(ids, "<i4"), on_late(out, "<f4"), activation="bf16")
    with torch.cuda.stream(late):
        found = out.clone()
    late.synchronize()
    want = (q.dequantize()[chosen.cpu().numpy()] * x.cpu().numpy()[:, None, None]).sum(-1)
    assert close(found, want, 6e-3)


@on_device
@pytest.mark.parametrize("name", FORMATS[:1])
def test_experts(name: str) -> None:
    q, there = made((4, 32, 512), name)
    decoded = q.dequantize()
    ids = torch.tensor([[0, 3], [1, 1], [2, 0]], device="cuda")
    for x in (torch.randn(3, 512, device="cuda"), torch.randn(3, 2, 512, device="cuda")):
        each = x.cpu().numpy().reshape(3, -1, 1, 512)
        want = (decoded[ids.cpu().numpy()] * each).sum(-1)
        for chosen in (ids, ids.to(torch.int32), ids.to(torch.uint8)):
            assert close(quantal.mul_mat_id(there, x, chosen, activation="bf16"), want, 6e-3)
    with pytest.raises(ValueError, match="1 dimensions"):
        quantal.mul_mat_id(there, x, ids[0])


@on_device
@pytest.mark.parametrize("name", FORMATS[:1])
def test_refused(name: str) -> None:
    _, there = made((64, 512), name)
    x = torch.ones(3, 512, device="cuda")
    for wrong, error, says in [
        (lambda: quantal.mul_mat(there, x.cpu()), TypeError, "x: lies on the CPU.*cuda:0"),
        (lambda: quantal.mul_mat(there, x[:, :511]), ValueError, r"\(3, 511\)"),
        (lambda: quantal.mul_mat(there, x, activation="exact"), ValueError, "'exact'.*'bf16'"),
        (lambda: quantal.mul_mat(there, x, torch.empty(3, 63, device="cuda")), ValueError, r"out.*\(3, 63\), wanted \(3, 64\)"),
        (lambda: quantal.mul_mat(there, x, torch.empty(3, 64)), TypeError, "out: lies on the CPU"),
        (lambda: quantal.mul_mat(there, x, torch.empty(3, 64, device="cuda", dtype=torch.float16)), TypeError, "out.*float32"),
        (lambda: quantal.mul_mat(there.cpu(), x), TypeError, "x: .*device"),
        (lambda: quantal.quantize(x, name), TypeError, "array: .*device.*cpu"),
        (lambda: quantal.mul_mat_id(there, x, x), ValueError, "experts"),
        (lambda: quantal.mul_mat(there, x.int()), TypeError, "x: dtype torch.int32 is not float32"),
        (lambda: quantal.mul_mat(there, x.bool()), TypeError, "x: dtype torch.bool is not float32"),
        (lambda: quantal.mul_mat(there, x.to(torch.complex64)), TypeError, "x: dtype torch.complex64 is not float32"),
    ]:
        with pytest.raises(error, match=says):
            wrong()
    unknown = quantal.format("q8_K")
    blocks = torch.zeros(unknown.row_bytes(512), dtype=torch.uint8, device="cuda")
    with pytest.raises(ValueError, match="q8_K is not in this build"):
        quantal.QuantizedArray.from_buffer(blocks, unknown, (1, 512))


@on_device
@pytest.mark.parametrize("name", FORMATS[:1])
def test_nothing_leaks_on_the_device(name: str) -> None:
    _, there = made((64, 512), name)
    x = torch.ones(3, 512, device="cuda")
    quantal.mul_mat(there, x)
    before = torch.cuda.memory_allocated()
    for _ in range(2000):
        quantal.mul_mat(there, x)
        there.dequantize()
        with pytest.raises(ValueError):
            quantal.mul_mat(there, x[:, :100])
    assert torch.cuda.memory_allocated() == before


@on_device
@pytest.mark.parametrize("name", FORMATS)
def test_quantized_linear_moves(name: str) -> None:
    from quantal.torch import QuantizedLinear

    linear = torch.nn.Linear(512, 64)
    layer = QuantizedLinear.from_linear(linear, name)
    x = torch.randn(7, 512)
    with torch.no_grad():
        want = layer(x)
        there = layer.cuda()
        y = there(x.cuda())
        assert y.is_cuda and close(y, want.numpy(), 3e-2)
        assert there(x.cuda().to(torch.bfloat16)).dtype == torch.bfloat16
        assert close(QuantizedLinear.from_linear(linear.cuda(), name)(x.cuda()), want.numpy(), 3e-2)
        assert close(layer.cpu()(x), want.numpy(), 1e-6)
