"""quantal.torch and tensors as arrays; skipped where torch is not installed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import quantal


def test_quantal_needs_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import quantal, quantal.testing\n"
        "q = quantal.quantize([[1.0] * 256], 'q4_K')\n"
        "assert quantal.mul_mat(q, [[1.0] * 256]).shape == (1, 1) and q.dequantize().shape == (1, 256)\n"
        "try:\n    import quantal.torch\nexcept ImportError as e:\n    assert 'pip install torch' in str(e)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_threads_that_meet_at_the_first_array_on_a_device() -> None:
    program = (
        "import importlib.abc, sys, threading, time, types\n"
        "import quantal\n"
        "class Tensor:\n    is_cuda = True\n"
        "class Slow(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'quantal._device': time.sleep(0.3)\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "sys.modules['torch'].Tensor = Tensor\n"
        "sys.meta_path.insert(0, Slow())\n"
        "refused = []\n"
        "def call():\n"
        "    try: quantal.QuantizedArray.from_buffer(Tensor(), 'q4_K', 256)\n"
        "    except AttributeError as e: refused.append(e.name)\n"
        "threads = [threading.Thread(target=call) for _ in range(4)]\n"
        "[t.start() for t in threads]\n[t.join() for t in threads]\n"
        "assert len(refused) == 4, refused\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


class Placed(np.ndarray):
    """An array of numpy with the device of one of cupy."""

    device = contextlib.nullcontext()


IDS = [[0, 3, -1], [2**31, 2**32 + 1, 2**62], [-7, -(2**31) - 1, -(2**62)]]
IDS_AS_INT32 = [[0, 3, -1], [2**31 - 1] * 3, [-1] * 3]


def test_ids_of_cupy_do_not_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    from quantal import _device

    monkeypatch.setitem(sys.modules, "cupy", np)
    found = _device.converted("cupy", np.array(IDS).view(Placed), True)
    assert found.dtype == np.int32 and found.tolist() == IDS_AS_INT32
    unsigned = np.array([[1, 2**63 + 1]], np.uint64).view(Placed)
    assert _device.converted("cupy", unsigned, True).tolist() == [[1, -1]]
    assert _device.converted("cupy", np.array([[1, 200]], np.uint8).view(Placed), True).tolist() == [[1, 200]]


torch = pytest.importorskip("torch")
qt: Any = pytest.importorskip("quantal.torch")


@pytest.fixture
def linear() -> Any:
    torch.manual_seed(0)
    return torch.nn.Linear(256, 24)


def test_tensors_are_arrays(linear: Any) -> None:
    values = linear.weight.detach().numpy()
    q = quantal.quantize(linear.weight, "q4_K")
    assert q.tobytes() == quantal.quantize(values, "q4_K").tobytes()
    half = linear.weight.detach().to(torch.bfloat16)
    assert quantal.quantize(half, "q4_K").tobytes() == quantal.quantize(half.float(), "q4_K").tobytes()
    x = torch.randn(3, 256)
    y = x @ q.T
    assert isinstance(y, torch.Tensor) and isinstance(q @ x.T, torch.Tensor)
    assert (y.numpy() == quantal.mul_mat(q, x.numpy())).all() and ((q @ x.T).T == y).all()
    out = torch.empty(3, 24)
    assert quantal.mul_mat(q, x, out) is out and (out == y).all()
    with pytest.raises(TypeError, match="array: .*Tensor|device"):
        quantal.quantize(torch.empty(4, 256, device="meta"), "q4_K")


def test_quantized_linear(linear: Any) -> None:
    layer = qt.QuantizedLinear.from_linear(linear, "q8_0")
    x = torch.randn(2, 5, 256)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), linear(x), rtol=0.05, atol=0.02)
        assert layer(x.to(torch.bfloat16)).dtype == torch.bfloat16
    other = qt.QuantizedLinear(quantal.quantize(np.zeros((24, 256), np.float32), "q8_0"), linear.bias)
    other.load_state_dict(layer.state_dict())
    assert (other(x) == layer(x)).all() and layer.weight.data.__array_interface__["data"][0] == layer.packed.data_ptr()
    with pytest.raises(RuntimeError, match="no_grad"):
        layer(x.clone().requires_grad_())
    with pytest.raises(NotImplementedError, match="meta.*the CPU and"):
        layer.to("meta")(x)
    with pytest.raises(ValueError, match="bias"):
        qt.QuantizedLinear(layer.weight if layer.packed.device.type == "cpu" else other.weight, torch.zeros(3))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("model.layers.3.self_attn.q_proj", ("blk.3.attn_q.weight", None)),
        ("model.layers.3.self_attn.o_proj", ("blk.3.attn_output.weight", None)),
        ("model.layers.10.mlp.down_proj", ("blk.10.ffn_down.weight", None)),
        ("model.layers.0.block_sparse_moe.experts.5.w2", ("blk.0.ffn_down_exps.weight", 5)),
        ("model.layers.0.block_sparse_moe.gate", ("blk.0.ffn_gate_inp.weight", None)),
        ("model.layers.0.mlp.experts.7.up_proj", ("blk.0.ffn_up_exps.weight", 7)),
        ("model.layers.0.mlp.shared_experts.gate_proj", ("blk.0.ffn_gate_shexp.weight", None)),
        ("model.layers.1.self_attn.kv_a_proj_with_mqa", ("blk.1.attn_kv_a_mqa.weight", None)),
        ("lm_head", ("output.weight", None)),
        ("model.layers.0.mystery", None),
        ("visual.patch", None),
    ],
)
def test_names(module: str, name: Any) -> None:
    assert qt.gguf_name(module) == name


class Block(torch.nn.Module):  # type: ignore[misc]
    """The names of a llama-like model, with two experts."""

    def __init__(self) -> None:
        super().__init__()
        self.up_proj, self.down_proj = torch.nn.Linear(256, 100), torch.nn.Linear(100, 256)
        self.experts = torch.nn.ModuleList(torch.nn.ModuleDict({"w1": torch.nn.Linear(256, 32)}) for _ in range(2))

    def forward(self, x: Any) -> Any:
        y = self.down_proj(torch.relu(self.up_proj(x)))
        self.experts[1]["w1"](y[: len(y) // 2])
        return y


@pytest.fixture
def model() -> Any:
    torch.manual_seed(1)
    root = torch.nn.Module()
    root.layers = torch.nn.ModuleList([torch.nn.ModuleDict({"mlp": Block()})])
    root.forward = lambda x: root.layers[0]["mlp"](x)
    return root


def test_calibrate_apply_convert(model: Any) -> None:
    x = torch.randn(40, 256)
    imatrix = qt.calibrate(model, [x[:20], (x[20:],)])
    assert imatrix.names() == [f"blk.0.ffn_{n}.weight" for n in ("down", "gate_exps", "up")]
    np.testing.assert_allclose(imatrix.sums("blk.0.ffn_up.weight")[0], (x.double() ** 2).sum(0), rtol=1e-6)
    assert imatrix.counts("blk.0.ffn_gate_exps.weight").tolist() == [0, 20]
    before = model.layers[0]["mlp"].up_proj.weight.detach().clone()
    want = quantal.quantize(before, "q4_K", imatrix.lookup("blk.0.ffn_up.weight", before.shape))
    report = {c.tensor: c for c in qt.apply(model, {"_exps": None, ".*": "q4_K"}, imatrix)}
    assert (model.layers[0]["mlp"].up_proj.weight.detach().numpy() == want.dequantize()).all()
    assert report["blk.0.ffn_up.weight"].format == "q4_K" and 0 < report["blk.0.ffn_up.weight"].nmse < 0.01
    assert "100 columns" in report["blk.0.ffn_down.weight"].note and report["blk.0.ffn_gate_exps.weight"].format is None
    y = model(x)
    qt.convert(model, "q8_0", imatrix)
    layer = model.layers[0]["mlp"].up_proj
    assert isinstance(layer, qt.QuantizedLinear) and isinstance(model.layers[0]["mlp"].experts[0]["w1"], qt.QuantizedLinear)
    with torch.no_grad():
        torch.testing.assert_close(model(x), y, rtol=0.1, atol=0.05)
    assert len(qt.calibrate(model, [x])) == 1, "the layer that is left; hooks of before are gone"


def small_transformer(kind: str, **more: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=96, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, **more,
    )  # fmt: skip
    torch.manual_seed(2)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def test_a_model_of_transformers() -> None:
    model, tokens = small_transformer("Llama"), torch.randint(0, 96, (3, 20))
    imatrix = qt.calibrate(model, [{"input_ids": tokens}])
    block = ["attn_k", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate", "ffn_up"]
    assert imatrix.names() == sorted([f"blk.{i}.{n}.weight" for i in (0, 1) for n in block] + ["output.weight"])
    assert all(imatrix.counts(name).tolist() == [60] for name in imatrix)
    before = model(tokens).logits
    report = qt.apply(model, "q4_K", imatrix)
    assert [c.tensor for c in report if c.format is None] == ["output.weight"]
    assert 0 < (model(tokens).logits - before).abs().max() and all(c.nmse < 0.02 for c in report)
    after = model(tokens).logits
    qt.convert(model, "q4_K")  # of values that q4_K has: the layers compute the same but for rounded activations
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, after, rtol=0.1, atol=0.1)


def test_experts_of_transformers() -> None:
    model, tokens = small_transformer("Mixtral", num_local_experts=4, num_experts_per_tok=2), torch.randint(0, 96, (1, 40))
    seen: list[tuple[Any, Any]] = []
    stack = model.model.layers[1].mlp.experts
    if not hasattr(stack, "gate_up_proj"):
        pytest.skip("experts are modules in this transformers")
    hook = stack.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].detach(), inputs[1])))
    imatrix = qt.calibrate(model, [tokens])
    hook.remove()
    hidden, chosen = seen[0]
    for tensor, cols in (("gate", 256), ("up", 256), ("down", 512)):
        counts = imatrix.counts(f"blk.1.ffn_{tensor}_exps.weight")
        assert counts.tolist() == [int((chosen == e).sum()) for e in range(4)]
        assert imatrix.sums(f"blk.1.ffn_{tensor}_exps.weight").shape == (4, cols)
    want = (hidden[(chosen == 2).any(-1)].double() ** 2).sum(0)
    np.testing.assert_allclose(imatrix.sums("blk.1.ffn_gate_exps.weight")[2], want, rtol=1e-6)
    x = hidden[(chosen == 2).any(-1)]
    gate, up = (x @ stack.gate_up_proj[2].T).detach().chunk(2, -1)
    inner = torch.nn.functional.silu(gate) * up
    np.testing.assert_allclose(imatrix.sums("blk.1.ffn_down_exps.weight")[2], (inner.double() ** 2).sum(0), rtol=1e-4)
    old = stack.gate_up_proj.detach().clone()
    report = qt.apply(model, {"ffn_up_exps": "q4_K"}, imatrix)
    assert [c.tensor for c in report if c.format] == [f"blk.{i}.ffn_up_exps.weight" for i in (0, 1) for _ in range(4)]
    importance = imatrix.lookup("blk.1.ffn_up_exps.weight", (4, 512, 256), experts=4).weights[2]
    assert (stack.gate_up_proj[2, 512:].detach().numpy() == quantal.quantize(old[2, 512:], "q4_K", importance).dequantize()).all()
    assert bool((stack.gate_up_proj[:, :512] == old[:, :512]).all())
    left = {c.note for c in qt.convert(model, {"_exps": "q4_K"}) if "_exps" in c.tensor}
    assert left == {"experts in one parameter"}


def test_ids_of_torch_do_not_wrap() -> None:
    from quantal import _device

    found = _device.converted("torch", torch.tensor(IDS), True)
    assert found.dtype == torch.int32 and found.tolist() == IDS_AS_INT32
    for name in ("uint8", "int16", "uint16", "uint32", "uint64"):
        if hasattr(torch, name):
            assert _device.converted("torch", torch.tensor([[1, 200]]).to(getattr(torch, name)), True).tolist() == [[1, 200]]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("int64", (0, 64)), ("uint8", (1, 8)), ("uint16", (1, 16)), ("uint32", (1, 32)), ("uint64", (1, 64)), ("float64", (2, 64)),
        ("bfloat16", (4, 16)), ("complex64", (5, 64)), ("bool", (6, 8)), ("float8_e4m3fn", (10, 8)), ("float8_e5m2", (12, 8)),
        ("quint8", (3, 8)),
    ],
)  # fmt: skip
def test_types_are_those_of_dlpack(name: str, code: tuple[int, int]) -> None:
    from quantal import _device

    if not hasattr(torch, name):
        pytest.skip(f"this torch has no {name}")
    if name == "quint8":
        made = torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.quint8)
    else:
        made = torch.zeros(3, dtype=getattr(torch, name))
    assert _device.torch_memory(made)[4:] == code


class Stack(torch.nn.Module):  # type: ignore[misc]
    """Experts in two parameters, as transformers has them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = torch.nn.Parameter(torch.randn(2, 64, 256) / 16)
        self.down_proj = torch.nn.Parameter(torch.randn(2, 256, 32) / 6)
        self.act_fn = torch.nn.functional.silu

    def inner(self, expert: int, x: Any) -> Any:
        gate, up = torch.nn.functional.linear(x, self.gate_up_proj[expert]).chunk(2, -1)
        return self.act_fn(gate) * up

    def forward(self, hidden: Any, top_k_index: Any, top_k_weights: Any = None) -> Any:
        for expert in range(2):
            self.inner(expert, hidden[(top_k_index == expert).any(-1)])
        return hidden


class Clamped(Stack):
    def _apply_gate(self, gate_up: Any) -> Any:
        gate, up = gate_up.chunk(2, -1)
        return self.act_fn(gate.clamp(max=0.1)) * (up + 1)

    def inner(self, expert: int, x: Any) -> Any:
        return self._apply_gate(torch.nn.functional.linear(x, self.gate_up_proj[expert]))


class Paired(Clamped):
    """Whose activation takes both halves."""

    def _apply_gate(self, gate_up: Any) -> Any:
        return torch.maximum(*gate_up.chunk(2, -1))


class NoGate(Clamped):
    """Computes in a manner that nobody can know."""

    _apply_gate = None

    def __init__(self) -> None:
        super().__init__()
        del self.act_fn

    def inner(self, expert: int, x: Any) -> Any:
        return x


class Interleaved(Stack):
    is_concatenated = False


class Owner(torch.nn.Module):  # type: ignore[misc]
    """Calls its experts by position or by name."""

    def __init__(self, experts: Any, by_name: bool = False) -> None:
        super().__init__()
        self.experts, self.router, self.by_name = experts, torch.nn.Linear(256, 2), by_name

    def forward(self, x: Any) -> Any:
        chosen = (self.router(input=x) if self.by_name else self.router(x)).argmax(-1, keepdim=True)
        if self.by_name:
            return self.experts(top_k_weights=None, top_k_index=chosen, hidden=x)
        return self.experts(x, chosen)


@pytest.mark.parametrize("kind", [Stack, Clamped, Paired])
@pytest.mark.parametrize("by_name", [False, True])
def test_experts_with_gates_of_their_own(kind: Any, by_name: bool) -> None:
    torch.manual_seed(4)
    model, x = Owner(kind(), by_name), torch.randn(30, 256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imatrix = qt.calibrate(model, [x])
    assert imatrix.counts("router.weight").tolist() == [30]
    chosen = model.router(x).argmax(-1)
    for expert in range(2):
        seen = x[chosen == expert]
        inner = model.experts.inner(expert, seen).detach().double()
        np.testing.assert_allclose(imatrix.sums(f"experts.{expert}.up_proj.weight")[0], (seen.double() ** 2).sum(0), rtol=1e-5)
        np.testing.assert_allclose(imatrix.sums(f"experts.{expert}.down_proj.weight")[0], (inner**2).sum(0), rtol=1e-4)


def test_experts_that_cannot_be_told_are_named() -> None:
    x = torch.randn(30, 256)
    with pytest.warns(UserWarning, match="experts.down_proj is left out.*act_fn"):
        imatrix = qt.calibrate(Owner(NoGate()), [x])
    known = [f"experts.{expert}.{leaf}_proj.weight" for expert in (0, 1) for leaf in ("gate", "up")]
    assert sorted(imatrix.names()) == [*known, "router.weight"]
    biased = Stack()
    biased.gate_up_proj_bias = torch.nn.Parameter(torch.zeros(2, 64))
    for stack in (biased, Interleaved()):
        with pytest.warns(UserWarning, match="calibrate: experts is left out.*biases"):
            assert qt.calibrate(Owner(stack), [x]).names() == ["router.weight"]
    swapped = Owner(Stack())
    swapped.forward = lambda x: swapped.experts(x, torch.rand(30, 2))
    with pytest.warns(UserWarning, match="calibrate: experts is left out: its inputs"):
        assert qt.calibrate(swapped, [x]).names() == []


def test_layers_without_a_tensor_are_named() -> None:
    model = Owner(Stack())
    model.router.forward = lambda *args, **kwargs: torch.zeros(30, 2)
    model.forward = lambda x: model.router(given=x)
    with pytest.raises(TypeError, match="calibrate: router is called without a tensor"):
        qt.calibrate(model, [torch.randn(30, 256)])


@pytest.mark.parametrize("family", ["LLAMA", "QWEN2", "QWEN3", "QWEN3MOE", "GEMMA2", "GEMMA3", "PHI3", "DEEPSEEK2"])
def test_names_are_those_of_pypi(family: str) -> None:
    gguf = pytest.importorskip("gguf")
    known = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, family), 2)
    leaves = ["q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa"]
    modules = [f"model.layers.1.self_attn.{n}" for n in leaves] + ["lm_head"]
    modules += [f"model.layers.1.mlp.{n}" for n in ("gate_proj", "up_proj", "down_proj", "gate_up_proj")]
    modules += [f"model.layers.1.mlp.shared_experts.{n}" for n in ("gate_proj", "up_proj", "down_proj")]
    compared = 0
    for module in modules:
        theirs = known.get_name(module)
        if theirs is not None:
            assert qt.gguf_name(module) == (f"{theirs}.weight", None), module
            compared += 1
    assert compared >= 5
