"""Makes tests/data/newest: adapters as a newer PEFT and transformers write them than Debian's torch runs, with the values that NumPy finds for them.

usage: make_newest.py [NAME ...]     in an environment with torch, transformers, peft, numpy (made with PEFT 0.21.2, transformers 5.24.0)

For each architecture a tiny model of random weights in half precision, an adapter on all of its linear layers, and for mixtures of experts on the parameters
of the experts too. `expected.json` has for each adapted weight the norm of the update that PEFT itself applies (`get_delta_weight`), and for each pair of
layers φ of the left singular vectors of Θ_A and Θ_B, found from the weights of the live model by the pseudo-inverse.
"""

import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers as T
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import ParamWrapper

DATA = Path(__file__).resolve().parents[1] / "data/newest"
RANK, ALPHA = 2, 6
TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 16, "max_position_embeddings": 16}
GROUPED = {**TEXT, "num_key_value_heads": 1}
IMAGE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 8, "patch_size": 4}
CAUSAL, CLASSIFIER, PICTURES = T.AutoModelForCausalLM, T.AutoModelForSequenceClassification, T.AutoModelForImageClassification
ARCHITECTURES = {
    "llama": (T.LlamaConfig, GROUPED, CAUSAL),
    "qwen3": (T.Qwen3Config, {**GROUPED, "head_dim": 8}, CAUSAL),
    "gemma3_text": (T.Gemma3TextConfig, {**GROUPED, "head_dim": 8}, CAUSAL),
    "phi3": (T.Phi3Config, {**GROUPED, "pad_token_id": 0}, CAUSAL),
    "gpt2": (T.GPT2Config, {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 16, "n_positions": 8}, CAUSAL),
    "gpt_neox": (T.GPTNeoXConfig, TEXT, CAUSAL),
    "bloom": (T.BloomConfig, {"hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": 16}, CAUSAL),
    "falcon": (T.FalconConfig, {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 16}, CAUSAL),
    "opt": (T.OPTConfig, {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24, "vocab_size": 16, "word_embed_proj_dim": 16, "max_position_embeddings": 8}, CAUSAL),
    "mpt": (T.MptConfig, {"d_model": 16, "n_heads": 2, "n_layers": 2, "vocab_size": 16, "max_seq_len": 8}, CAUSAL),
    "bert": (T.BertConfig, TEXT, CLASSIFIER),
    "modernbert": (T.ModernBertConfig, {**TEXT, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}, CLASSIFIER),
    "t5": (T.T5Config, {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 16, "decoder_start_token_id": 0}, T.AutoModelForSeq2SeqLM),
    "clip": (T.CLIPConfig, {"text_config": {**TEXT, "projection_dim": 8}, "vision_config": IMAGE, "projection_dim": 8}, T.AutoModel),
    "vit": (T.ViTConfig, IMAGE, PICTURES),
    "swin": (T.SwinConfig, {"image_size": 16, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 2}, PICTURES),
    "segformer": (T.SegformerConfig, {"num_encoder_blocks": 2, "depths": [2, 2], "sr_ratios": [2, 1], "hidden_sizes": [8, 16], "patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [2, 2], "mlp_ratios": [2, 2], "decoder_hidden_size": 16}, PICTURES),
    "convnext": (T.ConvNextConfig, {"image_size": 16, "patch_size": 4, "hidden_sizes": [8, 16], "depths": [2, 2], "num_stages": 2}, PICTURES),
    "mixtral": (T.MixtralConfig, {**GROUPED, "num_local_experts": 3, "num_experts_per_tok": 2}, CAUSAL),
    "qwen3_moe": (T.Qwen3MoeConfig, {**GROUPED, "head_dim": 8, "num_experts": 3, "moe_intermediate_size": 12}, CAUSAL),
    "deepseek_v3": (T.DeepseekV3Config, {**TEXT, "num_key_value_heads": 2, "n_routed_experts": 2, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 1, "moe_intermediate_size": 12, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4, "first_k_dense_replace": 0}, CAUSAL),
    "gpt_oss": (T.GptOssConfig, {**GROUPED, "head_dim": 8, "num_local_experts": 3, "num_experts_per_tok": 2, "intermediate_size": 16}, CAUSAL),
}
WITH_EXPERTS = {"mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss"}


def matrix(tensor):
    values = tensor.detach().double().numpy()
    return values.reshape(values.shape[0], -1)


def weights(name, module):
    """{key: (W0, A, B, norm of the update)} of an adapted module: one for each expert."""
    a, b, scaling = matrix(module.lora_A["default"].weight), matrix(module.lora_B["default"].weight), module.scaling["default"]
    delta = module.get_delta_weight("default").detach().double().numpy()
    if isinstance(module, ParamWrapper) and module.num_experts > 1:
        w0, count = module.get_param().detach().double().numpy(), module.num_experts
        a = a.reshape(count, -1, a.shape[1])
        parts = {f"{name}[{k}]": (w0[k], a[k], b[:, k::count], delta[k]) for k in range(count)}
    else:
        w0 = module.get_param() if isinstance(module, ParamWrapper) else module.get_base_layer().weight
        parts = {name: (matrix(w0), a, b, delta.reshape(delta.shape[0], -1))}
    found = {}
    for key, (w0, a, b, delta) in parts.items():
        update = scaling * b @ a
        # Which way round PEFT applies it is what its own update says.
        if delta.shape != update.shape or not np.allclose(delta, update, atol=0.05 * np.abs(update).max()):
            w0, delta = w0.T, delta.T
            assert np.allclose(delta, update, atol=0.05 * np.abs(update).max()), key
        found[key] = (w0, a, b, float(np.linalg.norm(update)))
    return found


def phi(one, other):
    left = [np.linalg.svd(theta, full_matrices=False)[0] for theta in (one, other)]
    return float(np.sum((left[0].T @ left[1]) ** 2) / min(one.shape[1], other.shape[1]))


def make(name):
    config, fields, auto = ARCHITECTURES[name]
    torch.manual_seed(sum(name.encode()))
    model = auto.from_config(config(**fields)).half()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter, dtype=torch.float32))
    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder / "base")
    experts = {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]} if name in WITH_EXPERTS else {}
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", init_lora_weights=False, **experts)
    adapted = get_peft_model(model, lora, autocast_adapter_dtype=False)
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                parameter.copy_(torch.randn_like(parameter, dtype=torch.float32))
    adapted.save_pretrained(folder / "adapter")
    for extra in [*folder.glob("*/README.md"), folder / "base/generation_config.json"]:
        extra.unlink(missing_ok=True)
    norms, thetas = {}, {}
    for key, module in adapted.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            for key, (w0, a, b, norm) in weights(key, module).items():
                inverse = np.linalg.pinv(w0)
                norms[key] = norm
                # The paper's equations need a square weight.
                square = w0.shape[0] == w0.shape[1]
                thetas[key] = {"shape": w0.shape, "A": (inverse if square else inverse.T) @ a.T, "B": inverse @ b}
    return folder, norms, thetas


def pairs(keys):
    """Keys that differ in nothing but numbers of blocks, experts apart."""
    kind = lambda key: re.sub(r"\.\d+(?=\.)", ".*", key)
    return [(one, other) for k, one in enumerate(keys) for other in keys[k + 1 :] if kind(one) == kind(other)]


def main():
    warnings.simplefilter("ignore")
    T.logging.set_verbosity_error()
    for name in sys.argv[1:] or ARCHITECTURES:
        folder, norms, thetas = make(name)
        found = []
        for one, other in pairs(list(thetas)):
            if thetas[one]["shape"] == thetas[other]["shape"]:
                found.append([one, other, {which: phi(thetas[one][which], thetas[other][which]) for which in "AB"}])
        (folder / "expected.json").write_text(json.dumps({"norms": norms, "phi": found}, indent=0))
        print(name, len(norms), len(found), sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), flush=True)


if __name__ == "__main__":
    main()
