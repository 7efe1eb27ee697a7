#!/usr/bin/env python3
"""Checkpoints that PyPI's compressed-tensors packs convert to the bits that it unpacks, in each of its formats.

The shipped model is packed, and written a second time as the bf16 that the package makes of that; quantal-convert must
give the same file for both.

Usage: checkpoint_readers.py QUANTAL_CONVERT MODEL.gguf [FOLDER [CASE...]]. FOLDER keeps the checkpoints and the files.
Exit status 77: a package is missing and nothing was tested.
"""
import filecmp
import json
import os
import subprocess
import sys
import tempfile

try:
    import gguf
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter, FP8BlockDequantizer
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
    from safetensors.torch import save_file
except ImportError as e:
    print(f"skipped: {e}; pip install gguf torch safetensors compressed-tensors")
    sys.exit(77)


def int_weights(bits, group, symmetric=True):
    return {"num_bits": bits, "type": "int", "symmetric": symmetric,
            **({"strategy": "group", "group_size": group} if group else {"strategy": "channel"})}


def fp8_weights(strategy, **more):
    return {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy, **more}


def fp4_weights(strategy, group):
    return {"num_bits": 4, "type": "float", "symmetric": True, "strategy": strategy, "group_size": group}


FORMATS = {
    "int4-g32": ("pack-quantized", int_weights(4, 32)),
    "int4-g64-zeros": ("pack-quantized", int_weights(4, 64, False)),
    "int4-rows": ("pack-quantized", int_weights(4, 0)),
    "int4-rows-zeros": ("pack-quantized", int_weights(4, 0, False)),
    "int8-g32": ("pack-quantized", int_weights(8, 32)),
    "int8-rows": ("pack-quantized", int_weights(8, 0)),
    "int8-rows-zeros": ("pack-quantized", int_weights(8, 0, False)),
    "int8-plain": ("int-quantized", int_weights(8, 0)),
    "int8-plain-zeros": ("int-quantized", int_weights(8, 0, False)),
    "fp8-tensor": ("float-quantized", fp8_weights("tensor")),
    "fp8-rows": ("float-quantized", fp8_weights("channel")),
    "fp8-blocks": ("float-quantized", fp8_weights("block", block_structure=[128, 128])),
    "nvfp4": ("nvfp4-pack-quantized", fp4_weights("tensor_group", 16)),
    "mxfp4": ("mxfp4-pack-quantized", fp4_weights("group", 32)),
}

OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INNER = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_q_a": "self_attn.q_a_proj", "attn_q_a_norm": "self_attn.q_a_layernorm",
         "attn_q_b": "self_attn.q_b_proj", "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
         "attn_kv_a_norm": "self_attn.kv_a_layernorm", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "ffn_gate_inp": "mlp.gate",
         "ffn_gate_shexp": "mlp.shared_experts.gate_proj", "ffn_up_shexp": "mlp.shared_experts.up_proj",
         "ffn_down_shexp": "mlp.shared_experts.down_proj"}


class Model:
    """The GGUF model as a checkpoint in the layout of transformers."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.stored = {t.name: self.floats(t) for t in self.reader.tensors}
        self.tensors, self.files = {}, {}
        self.add_tensors()
        self.add_config()
        self.add_tokenizer()

    @staticmethod
    def floats(t):
        x = torch.from_numpy(t.data.copy())
        if t.tensor_type.name == "BF16":
            x = x.view(torch.bfloat16)
        return x.reshape([int(n) for n in reversed(t.shape)])

    def key(self, name, otherwise=None):
        field = self.reader.fields.get(name)
        return otherwise if field is None else field.contents()

    def add_tensors(self):
        for name, x in self.stored.items():
            words = name.split(".")
            if words[0] != "blk":
                self.tensors[OUTER[words[0]] + ".weight"] = x
                continue
            layer, kind = f"model.layers.{words[1]}.", words[2]
            if kind.endswith("_exps"):
                for e in range(x.shape[0]):
                    part = kind.removeprefix("ffn_").removesuffix("_exps")
                    self.tensors[f"{layer}mlp.experts.{e}.{part}_proj.weight"] = x[e].clone()
            elif kind == "attn_k_b":
                values = self.stored[f"blk.{words[1]}.attn_v_b.weight"]
                joined = torch.cat([x.transpose(1, 2), values], 1)
                self.tensors[layer + "self_attn.kv_b_proj.weight"] = joined.reshape(-1, x.shape[1]).contiguous()
            elif kind == "exp_probs_b":
                self.tensors[layer + "mlp.gate.e_score_correction_bias"] = x
            elif kind in INNER:
                self.tensors[layer + INNER[kind] + ".weight"] = x

    def add_config(self):
        def k(name, otherwise=None):
            return self.key("deepseek2." + name, otherwise)
        sigmoid = k("expert_gating_func") == 2
        rope = k("rope.dimension_count")
        self.config = {
            "architectures": ["DeepseekV3ForCausalLM" if sigmoid else "DeepseekV2ForCausalLM"],
            "num_hidden_layers": k("block_count"), "hidden_size": k("embedding_length"),
            "intermediate_size": k("feed_forward_length"), "vocab_size": k("vocab_size"),
            "max_position_embeddings": k("context_length"), "num_attention_heads": k("attention.head_count"),
            "kv_lora_rank": k("attention.kv_lora_rank"), "q_lora_rank": k("attention.q_lora_rank"),
            "qk_nope_head_dim": k("attention.key_length_mla") - rope, "qk_rope_head_dim": rope,
            "v_head_dim": k("attention.value_length_mla"), "rms_norm_eps": k("attention.layer_norm_rms_epsilon"),
            "rope_theta": k("rope.freq_base"), "n_routed_experts": k("expert_count"),
            "num_experts_per_tok": k("expert_used_count"), "n_shared_experts": k("expert_shared_count"),
            "moe_intermediate_size": k("expert_feed_forward_length"),
            "first_k_dense_replace": k("leading_dense_block_count"),
            "routed_scaling_factor": k("expert_weights_scale"), "norm_topk_prob": bool(k("expert_weights_norm")),
            "scoring_func": "sigmoid" if sigmoid else "softmax", "topk_method": "noaux_tc" if sigmoid else "greedy",
            "n_group": k("expert_group_count", 1), "topk_group": k("expert_group_used_count", 1)}
        if k("rope.scaling.type"):
            y = "rope.scaling."
            self.config["rope_scaling"] = {
                "type": "yarn", "factor": k(y + "factor"),
                "original_max_position_embeddings": k(y + "original_context_length"),
                "beta_fast": k(y + "yarn_beta_fast", 32.0), "beta_slow": k(y + "yarn_beta_slow", 1.0),
                "mscale": 1.0, "mscale_all_dim": 1.0}

    def add_tokenizer(self):
        def k(name):
            return self.key("tokenizer.ggml." + name)
        tokens, types = k("tokens"), k("token_type")
        self.files["tokenizer.json"] = {
            "added_tokens": [{"id": i, "content": t, "special": True} for i, t in enumerate(tokens) if types[i] == 3],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
            "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": k("merges")}}
        self.files["tokenizer_config.json"] = {"bos_token": tokens[k("bos_token_id")],
                                               "eos_token": tokens[k("eos_token_id")]}

    def write(self, folder, tensors, quantization=None):
        os.makedirs(folder, exist_ok=True)
        config = dict(self.config, **({"quantization_config": quantization} if quantization else {}))
        for name, content in dict(self.files, **{"config.json": config}).items():
            with open(os.path.join(folder, name), "w") as f:
                json.dump(content, f)
        save_file({n: t.contiguous() for n, t in tensors.items()}, os.path.join(folder, "model.safetensors"))


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
        parts = padded.reshape(padded.shape[0] // r, r, padded.shape[1] // c, c)
        low, high = parts.amin((1, 3)).to(weight.dtype), parts.amax((1, 3)).to(weight.dtype)
    else:
        parts = weight.reshape(rows, -1, args.group_size or cols)
        low, high = parts.amin(2), parts.amax(2)
    scale, zero = calculate_qparams(low, high, args, global_scale=total)
    return scale, zero, total


def pack(model, how, weights):
    """The checkpoint with projections packed, and what the package makes of it."""
    args = QuantizationArgs(**weights)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format=how)
    coder = BaseCompressor.load_from_registry(how)
    packed, plain, ignored, count = {}, {}, ["lm_head"], 0
    for name, x in model.tensors.items():
        fits = x.dim() == 2 and x.shape[1] % (args.group_size or 1) == 0
        if not fits or "_proj" not in name:
            packed[name] = plain[name] = x
            ignored += [name.removesuffix(".weight")] if "_proj" in name else []
            continue
        scale, zero, total = parameters(x, args)
        state = {"weight": x, "weight_scale": scale, "weight_zero_point": zero}
        if total is not None:
            state["weight_global_scale"] = total
        state = coder.compress(state, scheme)
        module = name.removesuffix(".weight")
        packed.update({f"{module}.{k}": v for k, v in state.items()})
        plain[name] = coder.decompress(state, scheme)["weight"].to(torch.bfloat16)
        count += 1
    quantization = {"quant_method": "compressed-tensors", "format": how,
                    "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
                    "ignore": ignored}
    return packed, plain, quantization, count


def projections(model):
    return {n: x for n, x in model.tensors.items() if x.dim() == 2 and "_proj" in n}


def deepseek_fp8(model):
    """Random codes and scales, as DeepSeek stores them."""
    stored, count = dict(model.tensors), 0
    for name, x in projections(model).items():
        rows, cols = x.shape
        stored[name] = (torch.randn(rows, cols) * 50).to(torch.float8_e4m3fn)
        stored[name + "_scale_inv"] = torch.rand(-(-rows // 128), -(-cols // 128)) * 1e-3
        count += 1
    plain = FP8BlockDequantizer(targets=["re:.*_proj.*"]).process(dict(stored))
    return stored, plain, {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}, count


def awq(model):
    """Random codes, zero points and scales; the package writes them as its own int4, which it unpacks."""
    stored, plain, group, count = dict(model.tensors), dict(model.tensors), 64, 0
    args = QuantizationArgs(**int_weights(4, group, False))
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format="pack-quantized")
    unpack = BaseCompressor.load_from_registry("pack-quantized").decompress
    ignored = [n.removesuffix(".weight") for n, x in projections(model).items() if x.shape[1] % group or x.shape[0] % 8]
    for name, x in projections(model).items():
        module, (rows, cols) = name.removesuffix(".weight"), x.shape
        if module in ignored:
            continue
        del stored[name]
        words = {"qweight": torch.randint(-2**31, 2**31 - 1, (cols, rows // 8), dtype=torch.int32),
                 "qzeros": torch.randint(-2**31, 2**31 - 1, (cols // group, rows // 8), dtype=torch.int32),
                 "scales": (torch.rand(cols // group, rows) * 1e-2).half()}
        stored.update({f"{module}.{k}": v for k, v in words.items()})
        made = AutoAWQConverter(group_size=group).process({f"{module}.{k}": v for k, v in words.items()})
        plain[name] = unpack({k.removeprefix(module + "."): v for k, v in made.items()}, scheme)["weight"].bfloat16()
        count += 1
    return stored, plain, {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm",
                           "zero_point": True, "modules_to_not_convert": ignored}, count


CASES = {**{name: lambda model, how=how, weights=weights: pack(model, how, weights)
            for name, (how, weights) in FORMATS.items()},
         "deepseek-fp8": deepseek_fp8, "awq": awq}


def main(convert, path, folder, *wanted):
    model = Model(path)
    failed = False
    for name, make in CASES.items():
        if wanted and name not in wanted:
            continue
        packed, plain, quantization, count = make(model)
        outputs = []
        for kind, tensors, config in (("packed", packed, quantization), ("plain", plain, None)):
            source, out = os.path.join(folder, name, kind), os.path.join(folder, f"{name}-{kind}.gguf")
            model.write(source, tensors, config)
            ran = subprocess.run([convert, source, out, "--name", "m"], capture_output=True, text=True)
            if ran.returncode:
                print(ran.stderr.strip())
            outputs.append(out)
        same = all(map(os.path.exists, outputs)) and filecmp.cmp(*outputs, shallow=False)
        print(f"{name:18} {count:4} matrices: {'the same' if same else 'DIFFERENT'}", flush=True)
        failed |= not same
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        sys.exit(main(*sys.argv[1:4], *sys.argv[4:]))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(sys.argv[1], sys.argv[2], temporary))
