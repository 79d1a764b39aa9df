"""Tiny models of architectures that merges are tried on: random weights, real configurations and processors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tiny_models import save_tokenizer

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
PATCHES = {"image_size": 16, "patch_size": 4}
LABELS = ("low", "mid", "high")


def _images(folder: Path) -> None:
    from transformers import ViTImageProcessorPil

    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)


def _sounds(folder: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    Wav2Vec2FeatureExtractor().save_pretrained(folder)


def _both(folder: Path) -> None:
    from transformers import CLIPImageProcessorPil

    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    save_tokenizer(folder)


CLIP = {
    "text_config": {**SMALL, "vocab_size": 64, "max_position_embeddings": 40, "projection_dim": 8, "eos_token_id": 3},
    "vision_config": {**SMALL, **PATCHES, "projection_dim": 8}, "projection_dim": 8,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any], Callable[[Path], None]]] = {  # class, settings, what goes with it
    "vit": ("ViTForImageClassification", {**SMALL, **PATCHES}, _images),
    "dinov2": ("Dinov2ForImageClassification", {**SMALL, **PATCHES, "mlp_ratio": 2}, _images),
    "beit": ("BeitForImageClassification", {**SMALL, **PATCHES}, _images),
    "clip": ("CLIPModel", CLIP, _both),
    "resnet": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 2], "layer_type": "basic"},
        _images,
    ),
    "convnext": (
        "ConvNextForImageClassification",
        {"hidden_sizes": [8, 12], "depths": [1, 2], "num_stages": 2, "patch_size": 2},
        _images,
    ),
    "wav2vec2": (
        "Wav2Vec2ForSequenceClassification",
        {**SMALL, "conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2,
         "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8, "vocab_size": 32},
        _sounds,
    ),
    "bert": (
        "BertForSequenceClassification", {**SMALL, "vocab_size": 64, "max_position_embeddings": 40}, save_tokenizer
    ),
}  # fmt: skip


def save(folder: Path, name: str, seed: int = 0, labels: tuple[str, ...] = LABELS) -> Path:
    """A model as `save_pretrained` writes it, with what makes its inputs."""
    import transformers

    kind, settings, beside = KINDS[name]
    named = {"id2label": dict(enumerate(labels)), "label2id": {v: i for i, v in enumerate(labels)}}
    made = getattr(transformers, kind)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = made(made.config_class(**settings, **({} if name == "clip" else named)))
        for value in model.state_dict().values():
            if value.is_floating_point():
                value += 0.1 * torch.rand_like(value)
    model.save_pretrained(folder)
    beside(folder)
    return folder
