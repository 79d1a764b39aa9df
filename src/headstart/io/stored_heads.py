"""Predictions of a checkpoint's own classification head, in the checkpoint's own label space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from headstart.core import Unreadable
from headstart.numerics.artifacts import linked

from .encoders import batches, quiet
from .image_encoder import ImageBatch, ImageEncoder, processor_of
from .modules import unreadable
from .recipes import Recipe
from .text_encoder import TextBatch, TextEncoder

Array = np.ndarray[Any, Any]


class Whole:
    """A checkpoint with its head, as its files say; the head is read whole, or not used at all.

    module: of transformers, float32, in eval mode; its answers have `logits`.
    """

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.head is not None  # asked by the caller
        self.head, self.module = recipe.head, _whole(recipe)
        self.encoder = _reader(recipe, self.module)

    def called(self, inputs: pa.Table, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """What the module is called with for these rows, padded to the longest."""
        batch = self.encoder.collate(inputs, rows)
        return dict(batch.tensors) if isinstance(batch, TextBatch) else _pixels(batch)


def predictions(recipe: Recipe, inputs: pa.Table) -> Array:
    """(rows, labels) float64, by the checkpoint's own head."""
    whole = Whole(recipe)
    out = np.zeros((inputs.num_rows, len(whole.head.labels)), dtype=np.float64)
    with torch.inference_mode():
        for rows in batches(whole.encoder.keys(inputs)):
            logits = whole.module(**whole.called(inputs, rows)).logits
            out[rows] = linked(logits.double().numpy(), whole.head.link)
    return out


def _pixels(batch: ImageBatch) -> dict[str, torch.Tensor]:
    return {"pixel_values": batch.pixels}


def _whole(recipe: Recipe) -> Any:
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if recipe.modality == "text" else AutoModelForImageClassification
    try:
        with quiet():
            model, report = kind.from_pretrained(
                recipe.model,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(error, recipe.where) from error
    lost = sorted(report["missing_keys"]) + sorted(str(k) for k in report["mismatched_keys"])
    if lost:
        raise Unreadable(
            f"{len(lost)} tensors of the head are not in the folder, such as `{lost[0]}`",
            where=f"source `{recipe.where}`",
            fix="copy the folder again from its origin; a missing head is never filled at random",
        )
    return model.eval()


def _reader(recipe: Recipe, whole: torch.nn.Module) -> TextEncoder | ImageEncoder:
    if recipe.modality == "image":
        return ImageEncoder(whole, processor_of(recipe), recipe)
    return TextEncoder.reading(recipe, whole)
