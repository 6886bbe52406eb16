"""Architectures of transformers, small and with random weights, and what each is called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

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
    # Sizes of other names, where a configuration has them.
    "n_embd": 64,
    "n_layer": 2,
    "n_layers": 2,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "d_ff": 128,
    "d_kv": 16,
    "d_inner": 128,
    "ffn_dim": 128,
    "dim": 64,
    "hidden_dim": 128,
    "n_positions": 128,
    "embedding_size": 64,
    "emb_dim": 64,
    "image_size": 64,
    "patch_size": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "head_dim": 16,
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


@dataclass(frozen=True)
class Architecture:
    """A model of transformers: its type, auto class, what its configuration has beyond the small sizes, its inputs."""

    name: str
    auto: str
    more: dict[str, Any]
    inputs: Inputs


#: Those whose configurations need more than the small sizes, and those that broke other tools.
NAMED: tuple[tuple[str, str, dict[str, Any], Inputs], ...] = (
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

#: Auto classes by which the other types of models are built, the first that has it, and what each is called with.
FAMILIES: tuple[tuple[str, str, Inputs], ...] = (
    ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "AutoModelForCausalLM", words),
    ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", "AutoModelForMaskedLM", words),
    ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "AutoModelForSeq2SeqLM", pairs),
    ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES", "AutoModel", image(64)),
    ("MODEL_FOR_CTC_MAPPING_NAMES", "AutoModel", sound),
)


def all_of(transformers: Any) -> Iterator[Architecture]:
    """Those with a line above, then every other type that one of the families has."""
    yield from (Architecture(*row) for row in NAMED)
    seen = {row[0] for row in NAMED}
    tables = transformers.models.auto.modeling_auto
    families = [(getattr(tables, table), auto, inputs) for table, auto, inputs in FAMILIES]
    # One of each family after the other, so that a run that is stopped has some of all.
    queues = [[(k, auto, inputs) for k in table if k not in seen] for table, auto, inputs in families]
    while any(queues):
        for queue in queues:
            while queue:
                kind, auto, inputs = queue.pop(0)
                if kind not in seen:
                    seen.add(kind)
                    yield Architecture(kind, auto, {}, inputs)
                    break


def build(one: Architecture) -> nn.Module:
    """The model with small sizes, as far as its configuration has them."""
    import transformers

    settings = {k: v for k, v in SMALL.items() if k not in one.more} | one.more
    config = transformers.AutoConfig.for_model(one.name)
    known = {k: v for k, v in settings.items() if k in one.more or _suits(config, k, v)}
    config = transformers.AutoConfig.for_model(one.name, **known)
    if getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0
    model: nn.Module = getattr(transformers, one.auto).from_config(config)
    return model.train()


def _suits(config: Any, name: str, value: Any) -> bool:
    """Whether a configuration has a size, as one number where we have one."""
    if not hasattr(config, name):
        return False
    try:
        return isinstance(getattr(config, name), list | tuple) == isinstance(value, list | tuple)
    except NotImplementedError:
        return False
