"""Tiny models with random weights, as `transformers` makes and saves them."""

import torch
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

LAYERS = 3
WIDTH = 48


def bert():
    return BertModel(BertConfig(**encoder_sizes()))


def roberta_classifier():
    return RobertaForSequenceClassification(RobertaConfig(**encoder_sizes(), num_labels=3))


def encoder_sizes():
    return dict(vocab_size=40, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=64)


def llama(key_value_heads=4):
    """With fewer key and value heads than query heads (grouped-query attention) k_proj and v_proj are not square."""
    sizes = dict(vocab_size=40, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=64)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=key_value_heads))


def gpt2():
    """Its c_attn is a Conv1D: stored (in, out), with out = 3 in."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=WIDTH, n_layer=LAYERS, n_head=4))


def seeded(make, *arguments):
    torch.manual_seed(7)
    return make(*arguments)
