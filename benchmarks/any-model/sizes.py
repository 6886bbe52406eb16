"""Configurations of transformers with small sizes, whatever they call them."""

from __future__ import annotations

from typing import Any

from inputs import WORDS

#: Larger ones take too long here, and show nothing that a small one does not.
MOST_PARAMETERS = 8_000_000
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
    "depth": 2,
    "embed_dim": 64,
    "projection_dim": 64,
    "decoder_hidden_size": 64,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 128,
    "num_queries": 16,
    "num_mel_bins": 16,
    "num_frames": 4,
    "num_attention_layers": 2,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "shared_expert_intermediate_size": 64,
    "ffn_hidden_size": 128,
    "sliding_window": 32,
}


def small(kind: Any, more: dict[str, Any]) -> Any:
    """A configuration with small sizes, as far as it has them; those of its parts as well."""
    plain = kind()
    settings = {k: v for k, v in SMALL.items() if k not in more and _suits(plain, k, v)}
    for part in getattr(kind, "sub_configs", {}):
        inner = getattr(plain, part, None)
        if inner is not None and part not in more and hasattr(inner, "to_dict"):
            settings[part] = small(type(inner), {})
    return kind(**settings | more)


def _suits(config: Any, name: str, value: Any) -> bool:
    """Whether a configuration has a size, as one number where we have one."""
    if not hasattr(config, name):
        return False
    try:
        if isinstance(getattr(config, name), list | tuple) != isinstance(value, list | tuple):
            return False
        setattr(config, name, value)
    except (NotImplementedError, TypeError, ValueError):
        return False
    return True
