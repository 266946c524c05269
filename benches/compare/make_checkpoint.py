"""Generates a RoBERTa-shaped or Llama-shaped base checkpoint and LoRA adapters (PEFT layout) for the timing comparison.

usage: make_checkpoint.py WORK_DIR [--layers 12] [--width 768] [--rank 8] [--modules query,value] [--adapters 1] [--seed 0]
       make_checkpoint.py WORK_DIR --llama KV,FFN [--layers 2] [--width 2048] [--rank 16] ...

With --llama all seven linear modules of each layer are adapted, and the base is stored as bfloat16.

Writes WORK_DIR/base and WORK_DIR/adapters/NNN, and last WORK_DIR/shape.json. A WORK_DIR that already holds the same shape is left
as it is. Every tensor has a random stream of its own, so layer 3 of a 12-layer checkpoint equals layer 3 of a 24-layer one.
"""
import argparse
import json
import os

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

FORMAT = 1  # raise when the contents change, so that old work directories are made again
W0_STD = 0.04  # about what the attention weights of RoBERTa-base have
# The seven linear modules of a Llama layer: where they are, and their rows and columns.
LLAMA = {
    "q_proj": ("self_attn", "width", "width"), "k_proj": ("self_attn", "kv", "width"), "v_proj": ("self_attn", "kv", "width"),
    "o_proj": ("self_attn", "width", "width"), "gate_proj": ("mlp", "ffn", "width"), "up_proj": ("mlp", "ffn", "width"),
    "down_proj": ("mlp", "width", "ffn"),
}
SPIKE = 12.0  # largest spectral spike over the bulk's standard deviation, decaying as k^-0.8


def trained_looking_w0(rng, d_out, d_in):
    """Gaussian bulk plus a decaying low-rank part: the condition number is 4e3 to 9e5, mostly about 1e4 (12 layers of 768)."""
    spikes = max(1, min(d_out, d_in) // 8)
    decay = SPIKE * np.arange(1, spikes + 1) ** -0.8
    left = rng.standard_normal((d_out, spikes)) * decay
    right = rng.standard_normal((spikes, d_in)) / np.sqrt(d_in)
    return (W0_STD * (rng.standard_normal((d_out, d_in)) + left @ right)).astype(np.float32)


def list_weights(args, modules):
    """`(number of the module, layer, path, out, in)` of every adapted weight."""
    def of(m, layer, name):
        if not args.llama:
            return m, layer, f"roberta.encoder.layer.{layer}.attention.self.{name}", args.width, args.width
        kv, ffn = map(int, args.llama.split(","))
        parent, d_out, d_in = LLAMA[name]
        size = {"width": args.width, "kv": kv, "ffn": ffn}
        return m, layer, f"model.layers.{layer}.{parent}.{name}", size[d_out], size[d_in]

    return [of(m, layer, name) for layer in range(args.layers) for m, name in enumerate(modules)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_dir")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--modules", default="query,value", help="names below attention.self (default query,value)")
    parser.add_argument("--adapters", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--llama", metavar="KV,FFN", help="rows of the key and value weights, and of the gate and up weights")
    args = parser.parse_args()
    modules = list(LLAMA) if args.llama else args.modules.split(",")
    shape = {"format": FORMAT, "layers": args.layers, "width": args.width, "rank": args.rank, "modules": modules,
             "adapters": args.adapters, "seed": args.seed} | ({"llama": args.llama} if args.llama else {})
    shape_path = os.path.join(args.work_dir, "shape.json")
    if os.path.exists(shape_path):
        with open(shape_path) as file:
            if json.load(file) == shape:
                return
        raise SystemExit(f"error: {args.work_dir} holds a checkpoint of another shape; give another directory or remove it")

    def stream(*key):
        return np.random.default_rng([args.seed, *key])

    weights = list_weights(args, modules)
    base = os.path.join(args.work_dir, "base")
    os.makedirs(base, exist_ok=True)
    tensors = {}
    for m, l, path, d_out, d_in in weights:
        rng = stream(0, m, l)
        w0 = trained_looking_w0(rng, d_out, d_in)
        tensors[path + ".weight"] = w0.astype(ml_dtypes.bfloat16) if args.llama else w0
        if not args.llama:
            tensors[path + ".bias"] = (0.1 * rng.standard_normal(d_out)).astype(np.float32)
    save_file(tensors, os.path.join(base, "model.safetensors"), metadata={"format": "pt"})
    heads = max(1, args.width // 64)
    if args.llama:
        kv, ffn = map(int, args.llama.split(","))
        write_json(os.path.join(base, "config.json"), {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": args.width, "num_hidden_layers": args.layers,
            "num_attention_heads": heads, "num_key_value_heads": max(1, kv // 64), "head_dim": 64, "intermediate_size": ffn,
            "vocab_size": 128256, "torch_dtype": "bfloat16"})
    else:
        write_json(os.path.join(base, "config.json"), {
            "architectures": ["RobertaForSequenceClassification"], "model_type": "roberta", "hidden_size": args.width,
            "num_hidden_layers": args.layers, "num_attention_heads": heads, "intermediate_size": 4 * args.width,
            "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "torch_dtype": "float32"})

    for n in range(args.adapters):
        folder = os.path.join(args.work_dir, "adapters", f"{n:03}")
        os.makedirs(folder, exist_ok=True)
        tensors = {}
        for m, l, path, d_out, d_in in weights:
            rng = stream(1 + n, m, l)
            bound = 1 / np.sqrt(d_in)  # PEFT's kaiming_uniform(a=sqrt(5)) of A, moved a little by training
            a = rng.uniform(-bound, bound, (args.rank, d_in)) + 0.2 * bound * rng.standard_normal((args.rank, d_in))
            b = 0.01 * rng.standard_normal((d_out, args.rank)) * np.arange(1, args.rank + 1) ** -0.5
            tensors[f"base_model.model.{path}.lora_A.weight"] = a.astype(np.float32)
            tensors[f"base_model.model.{path}.lora_B.weight"] = b.astype(np.float32)
        save_file(tensors, os.path.join(folder, "adapter_model.safetensors"), metadata={"format": "pt"})
        write_json(os.path.join(folder, "adapter_config.json"), {
            "peft_type": "LORA", "task_type": "CAUSAL_LM" if args.llama else "SEQ_CLS", "base_model_name_or_path": "../../base", "r": args.rank,
            "lora_alpha": args.rank, "lora_dropout": 0.0, "target_modules": modules, "bias": "none", "fan_in_fan_out": False,
            "inference_mode": True, "modules_to_save": None})
    write_json(shape_path, shape)


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
