"""Tiny models with random weights, as `transformers` makes and saves them."""

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

LAYERS = 3
WIDTH = 48
HEADS = 4


def bert(layers=LAYERS):
    return BertModel(BertConfig(**encoder_sizes(layers)))


def bert_classifier():
    return BertForSequenceClassification(BertConfig(**encoder_sizes(), num_labels=3))


def roberta_classifier():
    return RobertaForSequenceClassification(RobertaConfig(**encoder_sizes(), num_labels=3))


def encoder_sizes(layers=LAYERS, width=WIDTH):
    return dict(vocab_size=40, hidden_size=width, num_hidden_layers=layers, num_attention_heads=HEADS, intermediate_size=64)


def llama(key_value_heads=HEADS, width=WIDTH):
    """With fewer key and value heads than query heads (grouped-query attention) k_proj and v_proj are not square."""
    return LlamaForCausalLM(LlamaConfig(**encoder_sizes(width=width), num_key_value_heads=key_value_heads))


class Phi3Config(LlamaConfig):
    model_type = "phi3"


class Phi3ForCausalLM(LlamaForCausalLM):
    """Phi-3, which this version of transformers does not know: Llama with q, k and v in one weight. It is never called."""

    config_class = Phi3Config

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            attention = layer.self_attn
            parts = [attention.q_proj, attention.k_proj, attention.v_proj]
            fused = torch.nn.Linear(config.hidden_size, sum(part.out_features for part in parts), bias=False)
            fused.weight.data = torch.cat([part.weight.data for part in parts])
            attention.qkv_proj = fused
            del attention.q_proj, attention.k_proj, attention.v_proj


def phi3(key_value_heads, width=WIDTH):
    return Phi3ForCausalLM(Phi3Config(**encoder_sizes(width=width), num_key_value_heads=key_value_heads))


def gpt2(width=WIDTH):
    """Its c_attn is a Conv1D: stored (in, out), with out = 3 in."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=width, n_layer=LAYERS, n_head=HEADS))


def t5(width=WIDTH):
    """An encoder, and a decoder with two attentions in each block."""
    sizes = dict(vocab_size=40, d_model=width, d_kv=width // HEADS, num_heads=HEADS, d_ff=64)
    return T5ForConditionalGeneration(T5Config(**sizes, num_layers=LAYERS, num_decoder_layers=LAYERS))


def vit(width=WIDTH):
    sizes = dict(hidden_size=width, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=64)
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3))


class Convolutions(torch.nn.Module):
    """Blocks of 1x1 convolutions, as a residual network has them."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.ModuleDict({"expand": torch.nn.Conv2d(WIDTH, WIDTH, 1)}) for _ in range(LAYERS))

    def forward(self, x):
        for block in self.blocks:
            x = block["expand"](x).relu()
        return x


def seeded(make, *arguments):
    torch.manual_seed(7)
    return make(*arguments)
