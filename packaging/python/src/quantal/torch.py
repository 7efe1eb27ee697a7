"""Quantized linear layers, calibration and recipes for models of torch. Importing this needs torch; quantal does not.

imatrix = calibrate(model, batches)                       # importance, under GGUF names where they are known
report = apply(model, {"ffn_down": "q6_K", ".*": "q4_K"}, imatrix)  # weights become what the formats make of them
convert(model, "q4_K", imatrix)                           # layers become QuantizedLinear, for inference
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

try:
    import torch
except ImportError as cause:
    raise ImportError("quantal.torch needs torch: pip install torch (the rest of quantal works without it)") from cause

from . import _core
from ._core import Imatrix, QuantizedArray

if TYPE_CHECKING:
    from ._typing import Activation, FormatLike

    Rule = Callable[[str, torch.Tensor], Optional[FormatLike]]
    Recipe = Union[FormatLike, Mapping[str, Optional[FormatLike]], Rule]

_OUTER = {
    "embed_tokens": "token_embd",
    "lm_head": "output",
    "wte": "token_embd",
}
_ATTENTION = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "out_proj": "attn_output",
    "qkv_proj": "attn_qkv",
    "q_a_proj": "attn_q_a",
    "q_b_proj": "attn_q_b",
    "kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "kv_b_proj": "attn_kv_b",
}
_FEED_FORWARD = {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down", "gate_up_proj": "ffn_up"}
_EXPERT = {**_FEED_FORWARD, "w1": "ffn_gate", "w3": "ffn_up", "w2": "ffn_down"}
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)$")


class TensorName(NamedTuple):
    """Where the weight of a module goes in a GGUF file."""

    name: str
    expert: int | None = None
    """Its slice, for experts that are modules of their own."""


def gguf_name(module: str) -> TensorName | None:
    """The GGUF tensor of a module of a llama-like transformers model (Llama, Mistral, Qwen, Gemma, Mixtral, DeepSeek, ...).

    module: its name in model.named_modules(), "model.layers.0.mlp.up_proj" say. None: not known.
    """
    block = _BLOCK.search(module)
    if not block:
        outer = _OUTER.get(module.rsplit(".", 1)[-1])
        return TensorName(f"{outer}.weight") if outer else None
    number, path = block[1], block[2].split(".")
    found = _part_of_block(path)
    return found and TensorName(f"blk.{number}.{found.name}.weight", found.expert)


def _part_of_block(path: list[str]) -> TensorName | None:
    owner, leaf = path[0], path[-1]
    if "experts" in path:
        at = path.index("experts")
        if len(path) != at + 3 or not path[at + 1].isdigit() or leaf not in _EXPERT:
            return None
        return TensorName(_EXPERT[leaf] + "_exps", int(path[at + 1]))
    if owner == "self_attn" and len(path) == 2 and leaf in _ATTENTION:
        return TensorName(_ATTENTION[leaf])
    if owner in ("mlp", "feed_forward", "block_sparse_moe"):
        if path[1:2] in (["shared_expert"], ["shared_experts"]) and leaf in _FEED_FORWARD:
            return TensorName(_FEED_FORWARD[leaf] + "_shexp")
        if path[1:] in (["gate"], ["router"]):
            return TensorName("ffn_gate_inp")
        if len(path) == 2 and leaf in _FEED_FORWARD:
            return TensorName(_FEED_FORWARD[leaf])
    return None


def _tensor_name(module: str) -> TensorName:
    """The module's own name where no other is known."""
    return gguf_name(module) or TensorName(f"{module}.weight")


class _Weight(NamedTuple):
    """A matrix of a model, where it lies."""

    tensor: TensorName
    values: torch.Tensor
    layer: str | None
    """The torch.nn.Linear that it is the weight of."""


def _is_stack(module: torch.nn.Module) -> bool:
    """All experts of a block in two parameters, as transformers has them: gate over up (experts, 2 inner, cols), and down."""
    first, second = getattr(module, "gate_up_proj", None), getattr(module, "down_proj", None)
    if not (isinstance(first, torch.nn.Parameter) and isinstance(second, torch.nn.Parameter) and first.ndim == second.ndim == 3):
        return False
    experts, cols, inner = second.shape
    biased = getattr(module, "gate_up_proj_bias", None) is not None
    interleaved = not getattr(module, "is_concatenated", True)
    return tuple(first.shape) == (experts, 2 * inner, cols) and not biased and not interleaved


def _looks_like_stack(module: torch.nn.Module) -> bool:
    """Experts in two parameters, whatever their layout."""
    both = (getattr(module, "gate_up_proj", None), getattr(module, "down_proj", None))
    return all(isinstance(p, torch.nn.Parameter) and p.ndim == 3 for p in both)


def _inner(stack: Any, expert: int, x: torch.Tensor) -> torch.Tensor:
    """What down_proj of an expert sees: by the module's own gate, as transformers names it, or that of most models."""
    both = torch.nn.functional.linear(x, stack.gate_up_proj[expert])
    if callable(getattr(stack, "_apply_gate", None)):
        inner: torch.Tensor = stack._apply_gate(both)
    else:
        gate, up = both.chunk(2, dim=-1)
        inner = stack.act_fn(gate) * up
    wanted = (len(x), stack.down_proj.shape[-1])
    if tuple(inner.shape) != wanted:
        raise ValueError(f"its gate gives {tuple(inner.shape)}, wanted {wanted}")
    return inner


def _inputs(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], count: int) -> list[torch.Tensor] | None:
    """The first inputs of a call, in the order of the parameters; None where they are no tensors."""
    found = args
    if len(args) < count:
        try:
            found = tuple(inspect.signature(module.forward).bind(*args, **kwargs).arguments.values())
        except (TypeError, ValueError):
            return None
    first = list(found[:count])
    return first if len(first) == count and all(isinstance(x, torch.Tensor) for x in first) else None


def _stack_names(path: str, expert: int) -> tuple[TensorName, TensorName, TensorName]:
    gate, up, down = (_tensor_name(f"{path}.{expert}.{leaf}") for leaf in ("gate_proj", "up_proj", "down_proj"))
    return gate, up, down


def _weights(model: torch.nn.Module) -> Iterator[_Weight]:
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            yield _Weight(_tensor_name(path), module.weight.detach(), path)
        elif _is_stack(module):
            for expert, (both, down) in enumerate(zip(module.gate_up_proj.detach(), module.down_proj.detach())):
                for name, values in zip(_stack_names(path, expert), (*both.chunk(2), down)):
                    yield _Weight(name, values, None)


def _experts(model: torch.nn.Module) -> dict[str, int]:
    """How many experts each tensor has."""
    counts: dict[str, int] = {}
    for (name, expert), _, _ in _weights(model):
        if expert is not None:
            counts[name] = max(counts.get(name, 0), expert + 1)
    return counts


_Hook = Callable[[torch.nn.Module, "tuple[Any, ...]", "dict[str, Any]"], None]


def _skipped(path: str, why: str) -> None:
    """Once for each place, as Python's filters have it."""
    warnings.warn(f"calibrate: {path} is left out: {why}", stacklevel=2)


def _hooks(model: torch.nn.Module, imatrix: Imatrix) -> Iterator[tuple[torch.nn.Module, _Hook]]:
    experts = _experts(model)

    def add(tensor: TensorName, x: torch.Tensor) -> None:
        if x.numel():
            imatrix.accumulate(tensor.name, x.cpu(), slice=tensor.expert or 0, slices=experts.get(tensor.name, 1))

    def of_layer(path: str) -> _Hook:
        tensor = _tensor_name(path)

        def collect(layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs = _inputs(layer, args, kwargs, 1)
            if inputs is None:
                raise TypeError(f"calibrate: {path} is called without a tensor as its input")
            add(tensor, inputs[0].detach())

        return collect

    def of_stack(path: str) -> _Hook:
        def collect(stack: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs = _inputs(stack, args, kwargs, 2)
            if inputs is None or inputs[0].shape[:-1] != inputs[1].shape[:-1] or inputs[1].is_floating_point():
                _skipped(path, "its inputs are not tokens and the experts of each")
                return
            hidden, chosen = inputs[0].detach(), inputs[1]
            for expert in range(len(stack.down_proj)):
                x = hidden[(chosen == expert).any(-1)]
                gate, up, down = _stack_names(path, expert)
                add(gate, x)
                add(up, x)
                try:
                    add(down, _inner(stack, expert, x))
                except torch.cuda.OutOfMemoryError:
                    raise
                except (AttributeError, TypeError, ValueError, RuntimeError) as why:
                    _skipped(f"{path}.down_proj", str(why))

        return collect

    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            yield module, of_layer(path)
        elif _is_stack(module):
            yield module, of_stack(path)
        elif _looks_like_stack(module):
            _skipped(path, "experts with biases, or of another layout than gate over up")


@contextmanager
def _collecting(model: torch.nn.Module, imatrix: Imatrix) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module, hook in list(_hooks(model, imatrix))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def calibrate(model: torch.nn.Module, dataloader: Iterable[Any], imatrix: Imatrix | None = None) -> Imatrix:
    """Runs batches through a model and collects the squared inputs of every torch.nn.Linear and of every expert.

    dataloader: batches, each a mapping of keyword arguments, a tuple of arguments, or one argument (a tensor of tokens).
    imatrix: continues this one, which is returned; else a new one.

    Entries have GGUF names where gguf_name() knows them, else the module's name with ".weight". Experts are slices of
    one entry, be they modules or, as in transformers, rows of two parameters (gate_up_proj and down_proj without biases:
    what down_proj sees is computed once more then). Experts whose inputs cannot be told are left out, and a warning names
    them. The model runs as it is: call model.eval() before.
    """
    out = Imatrix() if imatrix is None else imatrix
    with _collecting(model, out), torch.no_grad():
        for batch in dataloader:
            if isinstance(batch, Mapping):
                model(**batch)
            elif isinstance(batch, (tuple, list)):
                model(*batch)
            else:
                model(batch)
    return out


def _rule(recipe: Recipe) -> Rule:
    if isinstance(recipe, Mapping):
        rules = [(re.compile(pattern), choice) for pattern, choice in recipe.items()]
        return lambda name, _: next((choice for pattern, choice in rules if pattern.search(name)), None)
    if callable(recipe):
        return recipe
    return lambda name, _: None if name in ("token_embd.weight", "output.weight") else recipe


class Change(NamedTuple):
    """What became of one weight."""

    tensor: str
    """Its GGUF name, or the module's with ".weight"."""
    format: str | None
    """None: left as it was."""
    nmse: float
    """Squared error over squared weights; 0 where it was left."""
    note: str = ""
    """Why it was left."""


class _Choice(NamedTuple):
    weight: _Weight
    format: FormatLike


def _choices(model: torch.nn.Module, recipe: Recipe, report: list[Change]) -> Iterator[_Choice]:
    rule = _rule(recipe)
    for weight in _weights(model):
        name, columns = weight.tensor.name, weight.values.shape[-1]
        choice = rule(name, weight.values)
        if choice is None:
            report.append(Change(name, None, 0.0, "no rule"))
        elif columns % _core.format(choice).block:
            block = _core.format(choice).block
            report.append(Change(name, None, 0.0, f"{columns} columns are not whole blocks of {block}"))
        else:
            yield _Choice(weight, choice)


def _quantized(choice: _Choice, imatrix: Imatrix | None, experts: Mapping[str, int], threads: int | None) -> QuantizedArray:
    (name, expert), values, _ = choice.weight
    importance = None
    if imatrix is not None:
        shape: tuple[int, ...] = tuple(values.shape)
        if expert is not None:
            shape = (experts[name], *shape)
        found = imatrix.lookup(name, shape, experts=experts.get(name, 0))
        if found is not None:
            one = expert if expert is not None and len(found.weights) > 1 else 0
            importance = found.weights[one] if expert is not None else found.weights
    return _core.quantize(values.cpu(), choice.format, importance, threads=threads)


def apply(
    model: torch.nn.Module, recipe: Recipe, imatrix: Imatrix | None = None, *, threads: int | None = None
) -> list[Change]:
    """Replaces weights of linear layers and experts by what a format makes of them, in place, with their dtype and device.

    The model then computes what an engine would from the quantized file, but for its activations: any harness measures
    the loss of the recipe.

    recipe: a format for all layers but the output; or regular expressions with formats (None: leave), the first that is
        found in the tensor's name decides; or a function of name and parameter.
    imatrix: importance, looked up under the tensors' names.

    Returns a line per linear layer and expert. Those whose columns are no whole blocks are left, and the line says so.
    """
    report: list[Change] = []
    experts = _experts(model)
    for choice in _choices(model, recipe, report):
        values = choice.weight.values
        quantized = _quantized(choice, imatrix, experts, threads)
        nmse = _core.error(values.cpu(), quantized, threads=threads)["nmse"]
        with torch.no_grad():
            values.copy_(torch.from_numpy(quantized.dequantize(threads=threads)))
        report.append(Change(choice.weight.tensor.name, quantized.format.name, nmse))
    return report


def convert(
    model: torch.nn.Module, recipe: Recipe, imatrix: Imatrix | None = None, *, threads: int | None = None
) -> list[Change]:
    """Replaces linear layers by QuantizedLinear, in place: recipe, imatrix and the answer are as for apply().

    Experts that are rows of one parameter are left.
    """
    report: list[Change] = []
    experts = _experts(model)
    for choice in list(_choices(model, recipe, report)):
        name, path = choice.weight.tensor.name, choice.weight.layer
        if path is None:
            report.append(Change(name, None, 0.0, "experts in one parameter"))
            continue
        quantized = _quantized(choice, imatrix, experts, threads)
        nmse = _core.error(choice.weight.values.cpu(), quantized, threads=threads)["nmse"]
        owner, _, leaf = path.rpartition(".")
        old: Any = model.get_submodule(path)
        setattr(model.get_submodule(owner), leaf, QuantizedLinear(quantized, old.bias).to(old.weight.device))
        report.append(Change(name, quantized.format.name, nmse))
    return report


class QuantizedLinear(torch.nn.Module):
    """A linear layer with quantized weights, for inference: y = x W^T + bias in float32, cast to x's dtype.

    The blocks are the buffer "packed", uint8 of shape (out_features, bytes of a row), so that state_dict() holds them and
    .cuda() moves them: the product then runs there, where the build of quantal has CUDA (quantal.cuda_formats()).
    """

    packed: torch.Tensor
    bias: torch.Tensor | None

    def __init__(
        self, weight: QuantizedArray, bias: torch.Tensor | None = None, *, activation: Activation = "q8", threads: int | None = None
    ) -> None:
        """weight: (out_features, in_features). activation and threads: as in quantal.mul_mat."""
        super().__init__()
        if weight.ndim != 2:
            raise ValueError(f"QuantizedLinear: weight of shape {weight.shape} is not a matrix")
        self.out_features, self.in_features = weight.shape
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"QuantizedLinear: bias {tuple(bias.shape)}, wanted ({self.out_features},)")
        self.format = weight.format
        self.activation: Activation = activation
        self.threads = threads
        packed = torch.frombuffer(bytearray(weight.tobytes()), dtype=torch.uint8)
        self.register_buffer("packed", packed.reshape(self.out_features, -1))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @classmethod
    def from_linear(
        cls, linear: torch.nn.Linear, format: FormatLike, importance: Any = None, *, threads: int | None = None
    ) -> QuantizedLinear:
        """Quantizes the weights of a layer, on the CPU; the new layer lies where the old one does."""
        weight = _core.quantize(linear.weight.detach().cpu(), format, importance, threads=threads)
        return cls(weight, linear.bias, threads=threads).to(linear.weight.device)

    @property
    def weight(self) -> QuantizedArray:
        """The blocks where they lie, (out_features, in_features)."""
        if self.packed.device.type not in ("cpu", "cuda"):
            raise NotImplementedError(
                f"QuantizedLinear: the blocks are on {self.packed.device}; quantal works on the CPU and on CUDA devices"
            )
        return QuantizedArray.from_buffer(self.packed, self.format, (self.out_features, self.in_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., in_features) on the device of the layer; returns (..., out_features) of x's dtype."""
        if torch.is_grad_enabled() and x.requires_grad:
            raise RuntimeError("QuantizedLinear is for inference: it has no gradient; use torch.no_grad()")
        y = _core.mul_mat(self.weight, x.detach(), activation=self.activation, threads=self.threads)
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"{self.in_features}, {self.out_features}, format={self.format.name}, bias={self.bias is not None}"
