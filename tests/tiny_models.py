"""Tiny models, made in milliseconds: random weights, real configurations, tokenizers and processors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

WORDS = [
    "a",
    "an",
    "the",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "mat",
    "hill",
    "big",
    "red",
    "house",
    "tree",
    "old",
    "new",
    "it",
    "was",
    "is",
    "and",
    "or",
    "under",
    "over",
    "here",
]
SMALL_TEXT: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 16, "dim": 16, "num_hidden_layers": 2, "n_layers": 2, "num_attention_heads": 2,
    "n_heads": 2, "intermediate_size": 24, "hidden_dim": 24, "max_position_embeddings": 40, "embedding_size": 16,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3,
}  # fmt: skip
SMALL_IMAGE: dict[str, dict[str, Any]] = {
    "vit": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
            "image_size": 16, "patch_size": 4},
    "deit": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
             "image_size": 16, "patch_size": 4},
    "beit": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
             "image_size": 16, "patch_size": 4},
    "dinov2_with_registers": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2,
                              "image_size": 16, "patch_size": 4, "num_register_tokens": 3},
    "dinov2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2, "image_size": 16,
               "patch_size": 4},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 2], "layer_type": "basic"},
    "convnext": {"hidden_sizes": [8, 12], "depths": [1, 2], "num_stages": 2, "patch_size": 2},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "image_size": 16,
             "patch_size": 4},
}  # fmt: skip


def texts(count: int = 12, seed: int = 0, longest: int = 30) -> pa.Table:
    """Sentences of mixed length."""
    draw = random.Random(seed)
    return pa.table({"text": [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(count)]})


def images(folder: Path, count: int = 5, seed: int = 0, sizes: tuple[tuple[int, int], ...] = ((20, 24),)) -> pa.Table:
    """Random pictures, half of them as bytes in the table and half as files."""
    from io import BytesIO

    from PIL import Image

    draw = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        height, width = sizes[i % len(sizes)]
        picture = Image.fromarray(draw.integers(0, 255, (height, width, 3), dtype=np.uint8))
        if i % 2:
            picture.save(folder / f"{seed}-{i}.png")
            rows.append({"bytes": None, "path": str(folder / f"{seed}-{i}.png")})
        else:
            held = BytesIO()
            picture.save(held, "PNG")
            rows.append({"bytes": held.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"image": pa.array(rows, type=kind)})


def save_tokenizer(folder: Path, *, longest: int = 32, lower: bool = True, words: Sequence[str] = tuple(WORDS)) -> None:
    """A word-level tokenizer in transformers' form."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {w: i for i, w in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=longest,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip


def config_for(model_type: str, **settings: Any) -> Any:
    """A small configuration; settings that a type does not know are left out."""
    from transformers import AutoConfig

    small = SMALL_IMAGE.get(model_type, SMALL_TEXT)
    known = set(AutoConfig.for_model(model_type).to_dict())
    return AutoConfig.for_model(model_type, **{k: v for k, v in small.items() if k in known} | settings)


def save_model(
    folder: Path, model_type: str, *, head: bool = False, tags: Sequence[str] = (), seed: int = 0, **settings: Any
) -> Path:
    """A folder as `save_pretrained` writes it; head: with a stored classification head of three labels, of rows; tags:
    that a stored head tells of each word."""
    import torch
    from transformers import (
        AutoModel,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        ViTImageProcessorPil,
    )

    image = model_type in SMALL_IMAGE
    labels = tags or (("low", "mid", "high") if head else ())
    if labels:
        settings |= {"id2label": dict(enumerate(labels)), "label2id": {name: at for at, name in enumerate(labels)}}
    config = config_for(model_type, **settings)
    of_rows = AutoModelForImageClassification if image else AutoModelForSequenceClassification
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = AutoModelForTokenClassification if tags else of_rows if head else AutoModel
        model = kind.from_config(config)
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point() and "layer_scale" not in name:
                drawn = torch.rand_like(value.data) if "running_var" in name else torch.randn_like(value.data)
                value.data = value.data + 0.15 * drawn
    model.save_pretrained(folder)
    if image:
        ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    else:
        save_tokenizer(folder)
    return folder
