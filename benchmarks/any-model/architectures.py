"""Architectures of transformers, small and with random weights, and what each is called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from inputs import (
    Inputs,
    features_and_words,
    film,
    frames_and_words,
    image,
    masks,
    pairs,
    patches,
    plain_words,
    series,
    sound,
    words,
    words_and_image,
)  # fmt: skip
from sizes import MOST_PARAMETERS, small
from torch import nn

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


@dataclass(frozen=True)
class Architecture:
    """A model of transformers: its type, auto class, what its configuration has beyond the small sizes, its inputs; or
    what makes it, where it is more than its configuration."""

    name: str
    auto: str
    more: dict[str, Any]
    inputs: Inputs | None
    make: Callable[[], nn.Module] | None = None


def _llama(**adapter: Any) -> nn.Module:
    import transformers

    config = small(transformers.LlamaConfig, {})
    model: nn.Module = transformers.LlamaForCausalLM(config)
    if adapter:
        import peft

        model = peft.get_peft_model(
            model, peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj", "down_proj"], **adapter)
        )
    return model


def _checkpointed(model: Any) -> nn.Module:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()
    return model  # type: ignore[no-any-return]


#: More than a configuration says.
MADE: tuple[tuple[str, Callable[[], nn.Module]], ...] = (
    ("llama, gradient checkpointing", lambda: _checkpointed(_llama())),
    ("llama, LoRA", lambda: _llama(lora_dropout=0.1)),
    ("llama, LoRA, gradient checkpointing", lambda: _checkpointed(_llama(lora_dropout=0.1))),
    ("llama, DoRA", lambda: _llama(use_dora=True)),
)


def _resnet() -> Any:
    import transformers

    return transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1], out_features=["stage4"]
    )


def _swin() -> Any:
    import transformers

    more = {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2]}
    return transformers.SwinConfig(
        **more, window_size=4, out_features=["stage1", "stage2", "stage3", "stage4"]
    )


def _detector(**more: Any) -> dict[str, Any]:
    return {"backbone_config": _resnet(), "num_labels": 4, "num_queries": 16, **more}


HEARD = {"max_source_positions": 64, "max_target_positions": 64, "decoder_start_token_id": 1}
SMALL_MASKS = {"feature_size": 32, "hidden_dim": 32, "dim_feedforward": 64}
FUTURE = {"prediction_length": 8, "context_length": 24, "num_time_features": 1}
PATCHED = {"context_length": 64, "patch_length": 8, "prediction_length": 8, "num_input_channels": 2}
MASKED = {"num_labels": 4, "mask_feature_size": 32}


def _mask2former() -> dict[str, Any]:
    return SMALL_MASKS | MASKED | {"backbone_config": _swin(), "train_num_points": 64, "num_queries": 8}


def _maskformer() -> dict[str, Any]:
    return MASKED | {"backbone_config": _swin(), "fpn_feature_size": 32}


#: Detection, segmentation, series, films: those whose inputs or parts have a form of their own.
OTHERS: tuple[tuple[str, str, Callable[[], dict[str, Any]], Inputs], ...] = (
    ("detr", "AutoModelForObjectDetection", _detector, image(64)),
    ("conditional_detr", "AutoModelForObjectDetection", _detector, image(64)),
    ("table-transformer", "AutoModelForObjectDetection", _detector, image(64)),
    ("dab-detr", "AutoModelForObjectDetection", _detector, image(64)),
    ("yolos", "AutoModelForObjectDetection", lambda: {"image_size": [64, 64], "num_labels": 4}, image(64)),
    ("mask2former", "AutoModelForUniversalSegmentation", _mask2former, masks(64)),
    ("maskformer", "AutoModelForInstanceSegmentation", _maskformer, masks(64)),
    ("time_series_transformer", "AutoModel", lambda: FUTURE, series),
    ("informer", "AutoModel", lambda: FUTURE, series),
    ("autoformer", "AutoModel", lambda: FUTURE, series),
    ("patchtst", "AutoModel", lambda: PATCHED, patches),
    ("patchtsmixer", "AutoModel", lambda: PATCHED, patches),
    ("timesformer", "AutoModel", dict, film),
    ("vivit", "AutoModel", lambda: {"tubelet_size": [2, 16, 16], "image_size": 64}, film),
    ("videomae", "AutoModel", dict, film),
    ("speech_to_text", "AutoModelForSpeechSeq2Seq", lambda: {"input_feat_per_channel": 16}, frames_and_words),
    ("whisper", "AutoModelForSpeechSeq2Seq", lambda: HEARD, features_and_words),
    ("clip", "AutoModel", dict, words_and_image),
    ("siglip", "AutoModel", dict, words_and_image),
    ("blip", "AutoModel", dict, words_and_image),
    ("altclip", "AutoModel", dict, words_and_image),
    ("chinese_clip", "AutoModel", dict, words_and_image),
    ("vilt", "AutoModel", dict, words_and_image),
    ("flava", "AutoModel", dict, words_and_image),
)
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
    ("big_bird", "AutoModelForMaskedLM", {"block_size": 4, "num_random_blocks": 2}, words),
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
    yield from (Architecture(name, "peft", {}, words, make) for name, make in MADE)
    yield from (Architecture(name, auto, more(), inputs) for name, auto, more, inputs in OTHERS)
    seen = {row[0] for row in (*NAMED, *OTHERS)}
    tables = transformers.models.auto.modeling_auto
    families: list[tuple[Any, str, Inputs | None]] = [
        (getattr(tables, table), auto, inputs) for table, auto, inputs in FAMILIES
    ]
    families.append((tables.MODEL_MAPPING_NAMES, "AutoModel", None))
    # One of each family after the other, so that a run that is stopped has some of all.
    queues = [[(k, auto, inputs) for k in table if k not in seen] for table, auto, inputs in families]
    of_families = {k for queue in queues[:-1] for k, *_ in queue}
    queues[-1] = [one for one in queues[-1] if one[0] not in of_families]
    while any(queues):
        for queue in queues:
            while queue:
                kind, auto, inputs = queue.pop(0)
                if kind not in seen:
                    seen.add(kind)
                    yield Architecture(kind, auto, {}, inputs)
                    break


def build(one: Architecture) -> nn.Module:
    """The model with small sizes.

    Raises:
        ValueError: its configuration has sizes of other names, so that it is large all the same.
    """
    import transformers

    if one.make is not None:
        return one.make().train()
    config = small(type(transformers.AutoConfig.for_model(one.name)), one.more)
    if getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0
    auto = getattr(transformers, one.auto)
    with torch.device("meta"):
        sizes = sum(p.numel() for p in auto.from_config(config).parameters())
    if sizes > MOST_PARAMETERS:
        raise ValueError(f"{sizes} parameters: the configuration has sizes of other names")
    model: nn.Module = auto.from_config(config)
    return model.train()
