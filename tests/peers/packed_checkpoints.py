"""The shipped model's weights as packages from PyPI pack them, and as the same packages unpack them to bf16.

A case is a function of the model's tensors that gives a `Packed`. Cases whose package is missing are not there; `missing` says why.
"""
import dataclasses
import importlib
import importlib.util
import sys
import types

import torch

missing = []
cases = {}


@dataclasses.dataclass
class Packed:
    """`stored` and `plain` are the tensors of the two checkpoints; `config` is of another model if it is not None."""
    stored: dict
    plain: dict
    quantization: dict
    count: int
    config: dict = None


def case(name):
    def add(make):
        cases[name] = make
        return make
    return add


def parts_of(package):
    """Lets modules of a package be imported without its start file, which may want what no processor has."""
    spec = importlib.util.find_spec(package)
    if not spec:
        raise ImportError(f"No module named {package!r}")
    bare = types.ModuleType(package)
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = bare


def package(define):
    """Defines the cases of a package if it is there."""
    try:
        define()
    except ImportError as e:
        missing.append(f"{define.__name__}: {e}")
    return define


def projections(tensors):
    return {n: x for n, x in tensors.items() if x.dim() == 2 and "_proj" in n}


def repack(tensors, fits, pack):
    """Replaces projections that fit by what `pack` makes of them: tensors by suffix, and the bf16 that they decode to."""
    stored, plain, ignored, count = dict(tensors), dict(tensors), ["lm_head"], 0
    for name, x in projections(tensors).items():
        module = name.removesuffix(".weight")
        if not fits(module, x):
            ignored.append(module)
            continue
        parts, decoded = pack(x)
        del stored[name]
        stored.update({f"{module}.{suffix}": v for suffix, v in parts.items()})
        plain[name] = decoded.to(torch.bfloat16)
        count += 1
    return stored, plain, ignored, count


@package
def compressed_tensors():
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.entrypoints.convert.converters import FP8BlockDequantizer
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    def parameters(weight, args):
        """Scales, zero points and the scale of the tensor, from what the weights of each share are between."""
        rows, cols = weight.shape
        strategy, total = str(args.strategy), None
        if strategy == "tensor_group":
            total = generate_gparam(weight.amin(), weight.amax())
        if strategy == "tensor":
            low, high = weight.amin().reshape(1), weight.amax().reshape(1)
        elif strategy == "block":
            r, c = args.block_structure
            padded = torch.nn.functional.pad(weight.float(), (0, -cols % c, 0, -rows % r))
            blocks = padded.reshape(padded.shape[0] // r, r, padded.shape[1] // c, c)
            low, high = blocks.amin((1, 3)).to(weight.dtype), blocks.amax((1, 3)).to(weight.dtype)
        else:
            groups = weight.reshape(rows, -1, args.group_size or cols)
            low, high = groups.amin(2), groups.amax(2)
        scale, zero = calculate_qparams(low, high, args, global_scale=total)
        return scale, zero, total

    def define(name, how, weights, scale_dtype=None):
        args = QuantizationArgs(**weights, scale_dtype=scale_dtype)
        scheme = QuantizationScheme(targets=["Linear"], weights=args, format=how)
        coder = BaseCompressor.load_from_registry(how)

        def pack(x):
            scale, zero, total = parameters(x, args)
            state = {"weight": x, "weight_scale": scale, "weight_zero_point": zero}
            if total is not None:
                state["weight_global_scale"] = total
            state = coder.compress(state, scheme)
            return state, coder.decompress(state, scheme)["weight"]

        @case(name)
        def make(tensors):
            fits = lambda _, x: x.shape[1] % (args.group_size or 1) == 0
            stored, plain, ignored, count = repack(tensors, fits, pack)
            groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
            return Packed(stored, plain, {"quant_method": "compressed-tensors", "format": how,
                                          "config_groups": groups, "ignore": ignored}, count)

    def integers(bits, group, symmetric=True):
        return {"num_bits": bits, "type": "int", "symmetric": symmetric,
                **({"strategy": "group", "group_size": group} if group else {"strategy": "channel"})}

    def floats(bits, strategy, **more):
        return {"num_bits": bits, "type": "float", "symmetric": True, "strategy": strategy, **more}

    for case_of in (
            ("int4, groups of 32", "pack-quantized", integers(4, 32)),
            ("int4, groups of 128", "pack-quantized", integers(4, 128)),
            ("int4, groups of 64, zero points", "pack-quantized", integers(4, 64, False)),
            ("int4, rows", "pack-quantized", integers(4, 0)),
            ("int4, rows, zero points", "pack-quantized", integers(4, 0, False)),
            ("int8, groups of 32", "pack-quantized", integers(8, 32)),
            ("int8, rows", "pack-quantized", integers(8, 0)),
            ("int8, rows, zero points", "pack-quantized", integers(8, 0, False)),
            ("int8, rows, not packed", "int-quantized", integers(8, 0)),
            ("int8, rows, zero points, not packed", "int-quantized", integers(8, 0, False)),
            ("fp8, tensors", "float-quantized", floats(8, "tensor")),
            ("fp8, rows", "float-quantized", floats(8, "channel")),
            ("fp8, blocks", "float-quantized", floats(8, "block", block_structure=[128, 128])),
            ("nvfp4", "nvfp4-pack-quantized", floats(4, "tensor_group", group_size=16), torch.float8_e4m3fn),
            ("mxfp4", "mxfp4-pack-quantized", floats(4, "group", group_size=32), torch.uint8)):
        define("compressed-tensors: " + case_of[0], *case_of[1:])

    @case("DeepSeek fp8, f32 scales")
    def deepseek(tensors):
        stored, plain, _, count = repack(tensors, lambda *_: True, lambda x: (fp8_blocks(x, 128), x))
        names = projections(tensors)
        decoded = FP8BlockDequantizer(targets=["re:.*_proj.*"]).process(dict(stored))
        plain.update({n: decoded[n].to(torch.bfloat16) for n in names})
        return Packed(stored, plain, {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}, count)


def fp8_blocks(x, size):
    """Codes and scales per block, those at the edges cut off."""
    rows, cols = x.shape
    padded = torch.nn.functional.pad(x.float(), (0, -cols % size, 0, -rows % size))
    blocks = padded.reshape(padded.shape[0] // size, size, padded.shape[1] // size, size)
    scales = blocks.abs().amax((1, 3)) / 448
    codes = (blocks / scales[:, None, :, None]).reshape(padded.shape)[:rows, :cols]
    return {"weight": codes.to(torch.float8_e4m3fn).contiguous(), "weight_scale_inv": scales}


def integer_parameters(x, bits, group, symmetric):
    """f16 scales, zero points, and the weights as these decode them: what those who pack GPTQ and AWQ are given."""
    groups = x.float().reshape(x.shape[0], -1, group)
    top, half = 2**bits - 1, 2**(bits - 1)
    if symmetric:
        scales = (groups.abs().amax(2) * 2 / top).half().float()
        zeros = torch.full_like(scales, half)
    else:
        low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
        scales = ((high - low) / top).half().float()
        zeros = torch.round(-low / scales).clamp(1, top)
    codes = (torch.round(groups / scales[..., None]) + zeros[..., None]).clamp(0, top)
    return scales, zeros, ((codes - zeros[..., None]) * scales[..., None]).reshape(x.shape)


def linear_of(weight):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return layer


@package
def auto_gptq():
    parts_of("auto_gptq"), parts_of("auto_gptq.nn_modules")
    from auto_gptq.nn_modules.qlinear.qlinear_cuda_old import QuantLinear

    def define(name, bits, group, symmetric):
        def pack(x):
            width = group if group > 0 else x.shape[1]
            scales, zeros, weight = integer_parameters(x, bits, width, symmetric)
            layer = QuantLinear(bits, group, x.shape[1], x.shape[0], False, weight_dtype=torch.float16)
            layer.pack(linear_of(weight), scales, zeros.clone(), None)
            layer.scales = layer.scales.half()
            parts = {k: getattr(layer, k) for k in ("qweight", "qzeros", "scales", "g_idx")}
            return parts, layer(torch.eye(x.shape[1], dtype=torch.float16)).t()

        @case("GPTQ: " + name)
        def make(tensors):
            fits = lambda _, x: x.shape[1] % max(group, 32) == 0 and x.shape[0] % 32 == 0
            stored, plain, ignored, count = repack(tensors, fits, pack)
            return Packed(stored, plain, {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric,
                                          "desc_act": False, "modules_to_not_convert": ignored}, count)

    define("int4, groups of 128", 4, 128, True)
    define("int4, groups of 32", 4, 32, True)
    define("int4, rows", 4, -1, True)
    define("int4, groups of 64, zero points", 4, 64, False)
    define("int8, groups of 64", 8, 64, True)
    define("int8, groups of 64, zero points", 8, 64, False)


@package
def autoawq():
    for name in ("awq", "awq.modules", "awq.modules.linear"):
        parts_of(name)
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    def define(group):
        def pack(x):
            scales, zeros, weight = integer_parameters(x, 4, group, False)
            layer = WQLinear_GEMM.from_linear(linear_of(weight), 4, group, scales=scales.t().contiguous(),
                                              zeros=zeros.t().contiguous())
            parts = {k: getattr(layer, k) for k in ("qweight", "qzeros", "scales")}
            return parts, dequantize_gemm(*parts.values(), 4, group).t()

        @case(f"AWQ: int4, groups of {group}, zero points")
        def make(tensors):
            fits = lambda _, x: x.shape[1] % group == 0 and x.shape[0] % 8 == 0
            stored, plain, ignored, count = repack(tensors, fits, pack)
            return Packed(stored, plain, {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm",
                                          "zero_point": True, "modules_to_not_convert": ignored}, count)

    define(128), define(64)


@package
def modelopt():
    from modelopt.torch.quantization.qtensor.fp8_tensor import FP8QTensor
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

    def nvfp4(x):
        packed, scales, total = NVFP4QTensor.quantize(x.clone(), 16)
        codes = packed._quantized_data
        weight = packed.dequantize(torch.float32, scale=scales, double_scale=total, block_sizes={-1: 16})
        # The package's table has no negative zero, which code 8 is.
        negative = torch.stack([codes & 8, codes >> 4 & 8], 2).reshape(x.shape) > 0
        weight = torch.where((weight == 0) & negative, -0.0, weight)
        return {"weight": codes, "weight_scale": scales, "weight_scale_2": total.reshape([])}, weight

    def fp8(x):
        packed, scale = FP8QTensor.quantize(x.float())
        return ({"weight": packed._quantized_data, "weight_scale": scale.reshape([])},
                packed.dequantize(torch.float32, scale=scale))

    for algorithm, pack, group in (("NVFP4", nvfp4, 16), ("FP8", fp8, 1)):
        @case("ModelOpt: " + algorithm)
        def make(tensors, algorithm=algorithm, pack=pack, group=group):
            stored, plain, ignored, count = repack(tensors, lambda _, x: x.shape[1] % group == 0, pack)
            return Packed(stored, plain, {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ignored}, count)


def fp4_groups(x):
    """Two e2m1 codes in a byte and exponents of 32 weights, the largest of which becomes at most 6."""
    rows, cols = x.shape
    groups = x.float().reshape(rows, -1, 32)
    power = torch.ceil(torch.log2(groups.abs().amax(2).clamp(min=2.0**-100) / 6))
    levels = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6])
    scaled = groups / torch.exp2(power)[..., None]
    codes = (scaled.abs()[..., None] - levels).abs().argmin(3) + 8 * (scaled < 0)
    codes = codes.reshape(rows, cols).to(torch.uint8)
    return codes[:, ::2] | codes[:, 1::2] << 4, (power + 127).to(torch.uint8)


@package
def transformers():
    from transformers import GptOssConfig, GptOssForCausalLM
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    def decoded(weight, scales):
        return Fp8Dequantize(None).convert({"weight": weight, "weight_scale_inv": scales})["weight"]

    def fp8(x, size):
        how = types.SimpleNamespace(weight_block_size=[size, size], scale_fmt="ue8m0")
        coder = Fp8Quantize(types.SimpleNamespace(quantization_config=how))
        parts = {k.removeprefix("m."): v for k, v in coder.convert({"m.weight": x}).items()}
        return parts, decoded(*parts.values())

    def fp4(x):
        codes, powers = fp4_groups(x)
        parts = {"weight": codes.view(torch.int8), "scale": powers.view(torch.float8_e8m0fnu)}
        return parts, decoded(*parts.values())

    def config(size, ignored):
        return {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [size, size],
                "modules_to_not_convert": ignored}

    @case("DeepSeek fp8, e8m0 scales")
    def exponents(tensors):
        size = 32
        fits = lambda _, x: x.shape[0] % size == 0 and x.shape[1] % size == 0
        stored, plain, ignored, count = repack(tensors, fits, lambda x: fp8(x, size))
        return Packed(stored, plain, config(size, ignored), count)

    @case("DeepSeek fp8, packed FP4 experts")
    def experts(tensors):
        size = 32
        is_expert = lambda module, x: ".experts." in module and x.shape[1] % 32 == 0
        fits = lambda module, x: is_expert(module, x) or (x.shape[0] % size == 0 and x.shape[1] % size == 0)
        stored, plain, ignored, count = dict(tensors), dict(tensors), [], 0
        for choice, pack in ((is_expert, fp4), (lambda m, x: fits(m, x) and not is_expert(m, x), lambda x: fp8(x, size))):
            some = {n: x for n, x in projections(tensors).items() if choice(n.removesuffix(".weight"), x)}
            packed, unpacked, _, n = repack(some, lambda *_: True, pack)
            for name in some:
                del stored[name]
            stored.update(packed), plain.update(unpacked)
            count += n
        ignored = [n.removesuffix(".weight") for n, x in projections(tensors).items()
                   if not fits(n.removesuffix(".weight"), x)]
        return Packed(stored, plain, config(size, ignored + ["lm_head"]), count)

    @case("gpt-oss: mxfp4")
    def gpt_oss(tensors):
        torch.manual_seed(1)
        shape = GptOssConfig(vocab_size=tensors["model.embed_tokens.weight"].shape[0], hidden_size=64,
                             intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                             head_dim=32, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=4096)
        plain = {n: (0.1 * torch.randn(x.shape)).bfloat16() for n, x in GptOssForCausalLM(shape).state_dict().items()}
        stored, count = dict(plain), 0
        for name in [n for n in plain if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
            experts, cols, rows = stored.pop(name).shape
            blocks = torch.randint(0, 256, (experts, rows, cols // 32, 16), dtype=torch.uint8)
            scales = torch.randint(110, 125, (experts, rows, cols // 32), dtype=torch.uint8)
            stored.update({name + "_blocks": blocks, name + "_scales": scales})
            plain[name] = convert_moe_packed_tensors(blocks, scales)
            count += experts
        return Packed(stored, plain, {"quant_method": "mxfp4"}, count,
                      {**shape.to_dict(), "architectures": ["GptOssForCausalLM"]})
