"""Predictions of a checkpoint's own head, of whole rows or of words, in the checkpoint's own label space."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from headstart.core import Unreadable
from headstart.numerics.artifacts import linked
from headstart.numerics.ragged import places, starts_of

from .encoders import batches, quiet
from .image_encoder import ImageBatch, ImageEncoder, processor_of
from .modules import steady, unreadable
from .recipes import SEES_PADDING, Recipe
from .text_encoder import TextBatch, TextEncoder, at_first_tokens

Array = np.ndarray[Any, Any]


class Whole:
    """A checkpoint with its head, as its files say; the head is read whole, or not used at all.

    module: of transformers, float32, in eval mode; its answers have `logits`.
    """

    def __init__(self, recipe: Recipe) -> None:
        head = recipe.head or recipe.word_head
        assert head is not None  # asked by the caller
        self.head, self.module = head, _whole(recipe)
        self.encoder = _reader(recipe, self.module)

    def called(self, inputs: pa.Table, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """What the module is called with for these rows, padded to the longest, and to whole windows of attention."""
        return _to_windows(_given(self.encoder.collate(inputs, rows)), self.module.config)

    @property
    def sees_padding(self) -> bool:
        """Whether what the module says of a row depends on the padding beside it."""
        return self.encoder.recipe.model_type in SEES_PADDING

    def batches(self, keys: Sequence[tuple[int, bytes]]) -> list[list[int]]:
        """Rows that the module may be called with together, by the encoder's keys of them."""
        found = batches(keys)
        if not self.sees_padding:
            return found
        return [list(alike) for some in found for _, alike in groupby(some, key=lambda i: keys[i][0])]

    def logits(self, inputs: pa.Table, rows: Sequence[int]) -> torch.Tensor:
        """(rows, labels), or (words, labels) of a head of words. rows: of one of the `batches`."""
        batch = self.encoder.collate(inputs, rows)
        said: torch.Tensor = self.module(**_given(batch)).logits
        if isinstance(batch, TextBatch) and batch.words is not None:
            return at_first_tokens(said, batch.words, batch.of)
        return said


def predictions(recipe: Recipe, inputs: pa.Table) -> Array:
    """(rows, labels) float64, by the checkpoint's own head; of lists of words, to a head of these, (words, labels), row
    after row: what it says at the first token of each word, NaN for a word that it does not see."""
    whole = Whole(recipe)
    words = [len(one) for one in inputs["tokens"].to_pylist()] if "tokens" in inputs.column_names else None
    starts = starts_of(np.ones(inputs.num_rows) if words is None else words)
    out = np.zeros((starts[-1], len(whole.head.labels)), dtype=np.float64)
    with torch.inference_mode():
        for rows in whole.batches(whole.encoder.keys(inputs)):
            out[places(starts, rows)] = linked(whole.logits(inputs, rows).double().numpy(), whole.head.link)
    return out


def _given(batch: TextBatch | ImageBatch) -> dict[str, torch.Tensor]:
    return dict(batch.tensors) if isinstance(batch, TextBatch) else {"pixel_values": batch.pixels}


def _to_windows(given: dict[str, torch.Tensor], config: Any) -> dict[str, torch.Tensor]:
    """As Longformer itself pads, so that the mask says of every token that it sees whether it counts."""
    windows = getattr(config, "attention_window", None)
    if windows is None or "attention_mask" not in given:
        return given
    size = windows if isinstance(windows, int) else max(windows)
    more = -given["attention_mask"].shape[1] % size
    blank = {"input_ids": config.pad_token_id}
    return {n: torch.nn.functional.pad(t, (0, more), value=blank.get(n, 0)) for n, t in given.items()}


def _whole(recipe: Recipe) -> Any:
    from transformers import (
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    of_texts = AutoModelForSequenceClassification if recipe.word_head is None else AutoModelForTokenClassification
    kind = of_texts if recipe.modality == "text" else AutoModelForImageClassification
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
    return steady(model.eval())


def _reader(recipe: Recipe, whole: torch.nn.Module) -> TextEncoder | ImageEncoder:
    if recipe.modality == "image":
        return ImageEncoder(whole, processor_of(recipe), recipe)
    return TextEncoder.reading(recipe, whole)
