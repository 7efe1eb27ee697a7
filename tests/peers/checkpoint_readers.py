#!/usr/bin/env python3
"""Checkpoints that packages from PyPI pack convert to the bits that the packages unpack, in each of their formats.

The shipped model is packed, and written a second time as the bf16 that the package makes of that; quantal-convert must
give the same file for both. With --perplexity also prints a table of the perplexity of that file and of the one of type auto.

Exit status 77: packages are missing and nothing was tested.
"""
import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile

try:
    import gguf
    import torch
    from safetensors.torch import save_file

    import packed_checkpoints
except ImportError as e:
    print(f"skipped: {e}; pip install gguf torch safetensors")
    sys.exit(77)


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

    def write(self, folder, tensors, config, quantization=None):
        os.makedirs(folder, exist_ok=True)
        config = dict(config or self.config, **({"quantization_config": quantization} if quantization else {}))
        for name, content in dict(self.files, **{"config.json": config}).items():
            with open(os.path.join(folder, name), "w") as f:
                json.dump(content, f)
        save_file({n: t.contiguous() for n, t in tensors.items()}, os.path.join(folder, "model.safetensors"))


def run(*command):
    """What a program prints; its complaint and None if it fails."""
    ran = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if ran.returncode:
        print(ran.stderr.strip())
        return None
    return ran.stdout


class Trial:
    """One case: both checkpoints and what they convert to."""

    def __init__(self, options, model, name, folder):
        self.options, self.folder = options, os.path.join(folder, name.replace(" ", "-").replace(":", ""))
        self.packed = packed_checkpoints.cases[name](model.tensors)
        p = self.packed
        model.write(os.path.join(self.folder, "packed"), p.stored, p.config, p.quantization)
        model.write(os.path.join(self.folder, "plain"), p.plain, p.config)

    def convert(self, kind, *more):
        out = os.path.join(self.folder, "-".join([kind, *more[1:]]) + ".gguf")
        done = run(self.options.convert, os.path.join(self.folder, kind), out, "--name", "m", *more)
        return None if done is None else out

    def same(self):
        """Both checkpoints give the same file."""
        self.plain = self.convert("plain")
        packed = self.convert("packed")
        return bool(packed and self.plain) and filecmp.cmp(packed, self.plain, shallow=False)

    def perplexities(self):
        """Of the bf16 file, and of that of type auto."""
        return [self.perplexity(f) for f in (self.plain, self.convert("packed", "--type", "auto"))]

    def perplexity(self, model):
        if model is None:
            return None
        program, text = self.options.perplexity
        said = run(program, "-m", model, "-f", text, "--chunks", self.options.chunks, "--json")
        return None if said is None else json.loads(said)["ppl"]


def main(options, folder):
    model = Model(options.model)
    failed, rows = False, []
    for name in packed_checkpoints.cases:
        if options.case and name not in options.case:
            continue
        trial = Trial(options, model, name, folder)
        same = trial.same()
        print(f"{name:55} {trial.packed.count:4} matrices: {'the same' if same else 'DIFFERENT'}", flush=True)
        failed |= not same
        if options.perplexity and same and not trial.packed.config:
            values = trial.perplexities()
            rows.append([name] + [f"{v:.4f}" if v else "-" for v in values])
            failed |= None in values
    for reason in packed_checkpoints.missing:
        print("skipped:", reason)
    if options.perplexity:
        print("\n| checkpoint | bf16 | auto |\n|---|---:|---:|")
        print("\n".join("| " + " | ".join(row) + " |" for row in rows))
    return int(failed) if packed_checkpoints.cases else 77


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("convert", help="quantal-convert")
    parser.add_argument("model", help="the model as GGUF")
    parser.add_argument("--case", action="append", help="a case to run instead of all")
    parser.add_argument("--keep", metavar="FOLDER", help="where checkpoints and files stay")
    parser.add_argument("--perplexity", nargs=2, metavar=("QUANTAL_PERPLEXITY", "TEXT"))
    parser.add_argument("--chunks", default=8, type=int)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    if chosen.keep:
        sys.exit(main(chosen, chosen.keep))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(chosen, temporary))
