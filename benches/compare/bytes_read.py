"""Counts what condlora reads of a large sharded base: a sparse file as large as a 5-billion-parameter model in BF16.

usage: bytes_read.py WORK_DIR [--condlora target/release/condlora] [--threads 2] [--layers 24] [--width 4096] [--inner 11008]

The base is Llama-shaped, in five shards. Only the weights that the adapter changes (q_proj and v_proj of four layers) hold numbers; the rest
are holes that take no room on the disk and would read as zeros. The bytes are those that the system counts for the process: everything that
it read by any call (`rchar` in /proc/PID/io), the program's own libraries and configuration too. Linux only.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from safetensors.numpy import save_file

SHARDS = 5
VOCABULARY = 32000
RANK = 16
MODULES = ("q_proj", "v_proj")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_dir", help="made here, with the base and the adapter in it, and removed again")
    parser.add_argument("--condlora", default=os.path.join("target", "release", "condlora"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--inner", type=int, default=11008)
    return parser.parse_args()


def list_tensors(args):
    """`{name: shape}` in the order of the model."""
    tensors = {"model.embed_tokens.weight": (VOCABULARY, args.width)}
    for layer in range(args.layers):
        stem = f"model.layers.{layer}"
        tensors[f"{stem}.input_layernorm.weight"] = (args.width,)
        tensors |= {f"{stem}.self_attn.{name}.weight": (args.width, args.width) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
        tensors |= {f"{stem}.mlp.{name}.weight": (args.inner, args.width) for name in ("gate_proj", "up_proj")}
        tensors[f"{stem}.mlp.down_proj.weight"] = (args.width, args.inner)
    return tensors | {"model.norm.weight": (args.width,), "lm_head.weight": (VOCABULARY, args.width)}


def adapted_layers(args):
    return sorted({0, args.layers // 3, 2 * args.layers // 3, args.layers - 1})


def write_base(folder, args):
    """The shards and their index; the sizes of all tensors, and of those that hold numbers, in bytes."""
    os.makedirs(folder)
    tensors = list_tensors(args)
    sizes = {name: 2 * int(np.prod(shape)) for name, shape in tensors.items()}
    total = sum(sizes.values())
    shards, before = [{} for _ in range(SHARDS)], 0
    for name, size in sizes.items():
        shards[min(SHARDS - 1, before * SHARDS // total)][name] = size
        before += size
    needed = [f"model.layers.{layer}.self_attn.{module}.weight" for layer in adapted_layers(args) for module in MODULES]
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file_name = f"model-{number:05}-of-{SHARDS:05}.safetensors"
        header, offset = {}, 0
        for name, size in shard.items():
            header[name] = {"dtype": "BF16", "shape": tensors[name], "data_offsets": [offset, offset + size]}
            weight_map[name] = file_name
            offset += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(folder, file_name), "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + offset)
            for name in needed:
                if name in shard:
                    file.seek(8 + len(text) + header[name]["data_offsets"][0])
                    file.write(random_bfloat16(name, tensors[name]))
    write_json(os.path.join(folder, "model.safetensors.index.json"), {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json(os.path.join(folder, "config.json"), {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": args.width, "num_hidden_layers": args.layers,
        "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": args.inner, "vocab_size": VOCABULARY})
    return total, sum(sizes[name] for name in needed)


def random_bfloat16(name, shape):
    """Gaussian weights, cut to their upper 16 bits."""
    rng = np.random.default_rng(list(name.encode()))
    return ((0.02 * rng.standard_normal(shape, dtype=np.float32)).view(np.uint32) >> 16).astype("<u2").tobytes()


def write_adapter(folder, args):
    os.makedirs(folder)
    rng, tensors = np.random.default_rng(0), {}
    for layer in adapted_layers(args):
        for module in MODULES:
            stem = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{stem}.lora_A.weight"] = rng.standard_normal((RANK, args.width), dtype=np.float32)
            tensors[f"{stem}.lora_B.weight"] = rng.standard_normal((args.width, RANK), dtype=np.float32)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"), metadata={"format": "pt"})
    write_json(os.path.join(folder, "adapter_config.json"), {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "../base", "r": RANK, "lora_alpha": RANK,
        "target_modules": list(MODULES), "layers_to_transform": adapted_layers(args)})
    return os.path.getsize(os.path.join(folder, "adapter_model.safetensors"))


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=1)


def count_bytes(arguments):
    """Runs a program; the bytes it read by any call, and the seconds it took. It is asked for them after its end, before it is let go."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=output, stderr=output)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        took = time.perf_counter() - started
        with open(f"/proc/{process.pid}/io") as file:
            counts = dict(line.split(": ") for line in file.read().splitlines())
        if process.wait() != 0:
            output.seek(0)
            raise SystemExit(f"error: expected exit 0, found {process.returncode}\n{output.read()[-2000:]}")
    return int(counts["rchar"]), took


def main():
    args = parse_arguments()
    if not sys.platform.startswith("linux"):
        raise SystemExit("error: the bytes are counted by /proc, which only Linux has")
    if not os.access(args.condlora, os.X_OK):
        raise SystemExit(f"error: no binary at {args.condlora}: run `cargo build --release`")
    os.makedirs(args.work_dir, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.work_dir) as folder:
        base, adapter = os.path.join(folder, "base"), os.path.join(folder, "adapter")
        total, needed = write_base(base, args)
        needed += write_adapter(adapter, args)
        headers = sum(int.from_bytes(open(os.path.join(base, name), "rb").read(8), "little") + 8
                      for name in os.listdir(base) if name.endswith(".safetensors"))
        nothing, _ = count_bytes([args.condlora, "--version"])
        read, took = count_bytes([args.condlora, "--threads", str(args.threads), "analyze", adapter, "-o", os.path.join(folder, "out"),
                                  "--null-draws", "0", "--figures", "none"])
        with open(os.path.join(folder, "out", "manifest.json")) as file:
            counted = json.load(file)["bytes_read"]
        print(f"base of {total / 1e9:.2f} GB in {SHARDS} shards; adapter on {', '.join(MODULES)} of layers {adapted_layers(args)}")
        print(f"  needed: {needed:>13,} bytes of tensors, {headers:,} of headers")
        print(f"  read:   {read:>13,} bytes by any call, {nothing:,} of them before the first line of the program")
        print(f"  by its own count (manifest.json): {counted:,} bytes of weight files")
        print(f"  that is {(read - nothing - headers) / needed:.5f} times the tensors needed, {read / total:.2%} of the base; {took:.1f} s")


if __name__ == "__main__":
    main()
