#!/usr/bin/env python3
"""Makes mistral4/: a small random checkpoint of Mistral Small 4 and its logits beyond the first context.

Usage: make_temperature_golden.py FOLDER. Needs torch, safetensors and transformers 5. Queries are large, so that the
temperature shows: without it the last logits are off by more than a tenth.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import Mistral4Config, Mistral4ForCausalLM

VOCABULARY, CONTEXT, TOKENS = 64, 32, 200

folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
torch.manual_seed(4)
config = Mistral4Config(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2, q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16,
    v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1, n_group=1,
    topk_group=1, routed_scaling_factor=1.0, norm_topk_prob=True, max_position_embeddings=512, tie_word_embeddings=False,
    attention_bias=False, rope_parameters={
        "type": "yarn", "rope_type": "yarn", "rope_theta": 10000.0, "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": CONTEXT, "llama_4_scaling_beta": 0.4})
config._experts_implementation = config._attn_implementation = "eager"
model = Mistral4ForCausalLM(config).float().eval()
with torch.no_grad():
    for name, p in model.named_parameters():
        size = 0.0 if "norm" in name else 0.6 if "q_b" in name else 0.3 if p.dim() > 1 else 0.1
        p.copy_((torch.randn(p.shape) * size + (1.0 if "norm" in name else 0.0)).bfloat16().float())
    tokens = torch.randint(3, VOCABULARY, (TOKENS,))
    logits = model.double()(tokens[None]).logits[0]
state = {n: x.to(torch.bfloat16).contiguous() for n, x in model.state_dict().items()}
save_file(state, os.path.join(folder, "model.safetensors"))
with open(os.path.join(folder, "config.json"), "w") as f:
    json.dump(dict(config.to_dict(), architectures=["Mistral4ForCausalLM"]), f, indent=1)
letters = {c: i for i, c in enumerate(["<unk>", "<s>", "</s>"] + [chr(ord("!") + i) for i in range(VOCABULARY - 3)])}
with open(os.path.join(folder, "tokenizer.json"), "w") as f:
    json.dump({"added_tokens": [{"id": i, "content": t, "special": True} for t, i in letters.items() if i < 3],
               "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
               "model": {"type": "BPE", "vocab": letters, "merges": []}}, f)
positions = torch.arange(7, TOKENS, 16)
save_file({"tokens": tokens.int(), "positions": positions.int(), "logits": logits[positions].float().contiguous()},
          os.path.join(folder, "golden.safetensors"))
