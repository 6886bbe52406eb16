"""Architectures of transformers, small and with random weights, and what each is called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

ROWS, LENGTH, WORDS = 4, 64, 256
#: What most configurations call the same sizes.
SMALL = {
    "hidden_size": 64,
    "d_model": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "vocab_size": WORDS,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}
EXPERTS = {
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "head_dim": 16,
}
SPEECH = {
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.0,
}

LONG = {
    "attention_window": 16,
    "max_encoder_position_embeddings": 128,
    "max_decoder_position_embeddings": 128,
}
HASHED = {
    "is_decoder": False,
    "axial_pos_shape": [8, 8],
    "axial_pos_embds_dim": [32, 32],
    "attn_layers": ["local", "lsh"],
    "attention_head_size": 16,
    "feed_forward_size": 128,
    "local_attn_chunk_length": 16,
    "lsh_attn_chunk_length": 16,
    "num_hashes": 1,
    "num_buckets": 8,
}
PYRAMID = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
WINDOWS = {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
LATENTS = {"d_latents": 64, "num_latents": 32, "num_self_attends_per_block": 2}

Inputs = Callable[[], dict[str, Any]]


def words() -> dict[str, Any]:
    ids = torch.randint(3, WORDS, (ROWS, LENGTH))
    return {"input_ids": ids, "labels": ids}


def pairs() -> dict[str, Any]:
    return {
        "input_ids": torch.randint(3, WORDS, (ROWS, LENGTH)),
        "labels": torch.randint(3, WORDS, (ROWS, 32)),
    }


def plain_words() -> dict[str, Any]:
    return {"input_ids": torch.randint(3, WORDS, (ROWS, LENGTH))}


def sound() -> dict[str, Any]:
    return {"input_values": torch.randn(ROWS, 16000)}


def image(size: int) -> Inputs:
    return lambda: {"pixel_values": torch.randn(ROWS, 3, size, size)}


#: Type of the model, auto class, what its configuration has beyond the small sizes, what it is called with.
ARCHITECTURES: tuple[tuple[str, str, dict[str, Any], Inputs], ...] = (
    ("mixtral", "AutoModelForCausalLM", EXPERTS, words),
    ("qwen2_moe", "AutoModelForCausalLM", EXPERTS | {"shared_expert_intermediate_size": 64}, words),
    ("qwen3_moe", "AutoModelForCausalLM", EXPERTS, words),
    ("olmoe", "AutoModelForCausalLM", EXPERTS, words),
    ("granitemoe", "AutoModelForCausalLM", EXPERTS, words),
    ("gpt_oss", "AutoModelForCausalLM", EXPERTS, words),
    ("phimoe", "AutoModelForCausalLM", EXPERTS, words),
    ("switch_transformers", "AutoModelForSeq2SeqLM", EXPERTS | {"d_kv": 16, "d_ff": 128, "num_heads": 4}, pairs),
    ("nllb-moe", "AutoModelForSeq2SeqLM", EXPERTS, pairs),
    ("wav2vec2", "AutoModel", SPEECH, sound),
    ("hubert", "AutoModel", SPEECH, sound),
    ("wavlm", "AutoModel", SPEECH, sound),
    ("longformer", "AutoModelForMaskedLM", {"attention_window": 16}, words),
    ("led", "AutoModelForSeq2SeqLM", LONG, pairs),
    ("big_bird", "AutoModelForMaskedLM", {"block_size": 8, "num_random_blocks": 2}, words),
    ("reformer", "AutoModelForMaskedLM", HASHED, words),
    ("segformer", "AutoModelForSemanticSegmentation", PYRAMID | {"decoder_hidden_size": 32}, image(64)),
    ("bert", "AutoModelForMaskedLM", {}, words),
    ("gpt2", "AutoModelForCausalLM", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}, words),
    ("llama", "AutoModelForCausalLM", {}, words),
    ("t5", "AutoModelForSeq2SeqLM", {"d_kv": 16, "d_ff": 128, "num_heads": 4}, pairs),
    ("bart", "AutoModelForSeq2SeqLM", {"decoder_layerdrop": 0.2, "encoder_layerdrop": 0.2}, pairs),
    ("deberta-v2", "AutoModelForMaskedLM", {}, words),
    ("xlnet", "AutoModelForCausalLM", {"n_layer": 2, "n_head": 4, "d_inner": 128}, words),
    ("funnel", "AutoModelForMaskedLM", {"block_sizes": [1, 1], "n_head": 4, "d_head": 16, "d_inner": 128}, words),
    ("mamba", "AutoModelForCausalLM", {}, words),
    ("rwkv", "AutoModelForCausalLM", {"context_length": 128, "attention_hidden_size": 64}, words),
    ("vit", "AutoModel", {"image_size": 64, "patch_size": 8}, image(64)),
    ("swin", "AutoModel", WINDOWS, image(64)),
    ("convnext", "AutoModel", PYRAMID, image(64)),
    ("canine", "AutoModel", {}, plain_words),
    ("perceiver", "AutoModelForMaskedLM", LATENTS, plain_words),
)  # fmt: skip
