"""Importance matrix of a transformers model: imatrix_of_transformers.py [MODEL FOLDER] -o imatrix.gguf.

Without a model, a small Llama with random weights and random tokens, which shows the names.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import transformers

import quantal
from quantal.torch import calibrate


def small_model() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


def batches(arguments: argparse.Namespace, vocabulary: int) -> list[torch.Tensor]:
    if not arguments.text:
        return [torch.randint(0, vocabulary, (1, 64)) for _ in range(4)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    tokens = tokenizer(open(arguments.text, encoding="utf-8").read(), return_tensors="pt").input_ids
    return list(tokens[:, : tokens.shape[1] // 512 * 512].split(512, dim=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="folder of a model")
    parser.add_argument("--text", help="calibration text; needs the model's tokenizer")
    parser.add_argument("-o", "--out", default="imatrix.gguf")
    arguments = parser.parse_args()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(arguments.model) if arguments.model else small_model()
    imatrix = calibrate(loaded.eval(), batches(arguments, loaded.config.vocab_size))
    imatrix.save(arguments.out)
    for name in imatrix:
        print(f"{name:<32} {imatrix.counts(name).sum():8d} inputs of {imatrix.sums(name).shape[1]}")
    print(quantal.Imatrix.load(arguments.out))


if __name__ == "__main__":
    main()
