"""Images through their model's own processor, the same for features and for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from headstart.core import Batch, Unfit

from .images import decode, in_parallel
from .kept import Kept
from .modules import depths, finish, load_module, low_rank_sites, unreadable
from .recipes import Recipe

Array = np.ndarray[Any, Any]
KEPT_BYTES = 256 * 2**20  # processed images of one table that are kept between epochs
CELL = 16  # pixels a side of one patch, where the model has no patches of its own


@dataclass(frozen=True, eq=False, slots=True)
class ImageBatch:
    """Processed images (rows, channels, height, width)."""

    pixels: torch.Tensor

    def __len__(self) -> int:
        return int(self.pixels.shape[0])


class ImageEncoder:
    """An image encoder with its own processor (transformers' PIL backend); satisfies `core.Encoder`."""

    def __init__(self, module: nn.Module, processor: Any, recipe: Recipe) -> None:
        self.module, self.processor, self.recipe = module, processor, recipe
        self.width = recipe.width
        self.fingerprint = ""  # of the source's weights, which adapters name; set where the source is known
        self.layers: Sequence[Sequence[str]] = depths(module)
        self.linear_layers: Sequence[str] = low_rank_sites(module)
        self._kept: Kept[dict[int, Array]] = Kept(lambda _: {})
        self.kept_bytes = 0  # of processed images between calls; set for training, where epochs read them again
        self._patches = _patches(processor, recipe)

    @classmethod
    def load(cls, recipe: Recipe) -> Self:
        return cls(load_module(recipe), processor_of(recipe), recipe)

    def costs(self, inputs: pa.Table) -> Sequence[int]:
        """Patches of each row: the same for all, as the processor makes them one size."""
        return [self._patches] * inputs.num_rows

    def keys(self, inputs: pa.Table) -> Sequence[tuple[int, bytes]]:
        """Size and place of each row, by which batches are made."""
        return [(self._patches, i.to_bytes(8, "big")) for i in range(inputs.num_rows)]

    def collate(self, inputs: pa.Table, rows: Sequence[int]) -> ImageBatch:
        if "image" not in inputs.column_names:
            raise Unfit(
                f"the rows have no images (columns: {', '.join(inputs.column_names)[:80]})",
                where=f"source `{self.recipe.where}`",
                fix="use a text model for texts, and name the image column with --image",
            )
        kept = self._kept(inputs)
        wanted = [int(r) for r in rows]
        missing = [r for r in wanted if r not in kept]
        fresh = dict(zip(missing, self._processed(inputs, missing), strict=True))
        if fresh and (len(kept) + len(fresh)) * next(iter(fresh.values())).nbytes <= self.kept_bytes:
            kept.update(fresh)
        pixels = [kept[r] if r in kept else fresh[r] for r in wanted]
        if sizes := sorted({one.shape[1:] for one in pixels})[1:]:
            raise Unfit(
                f"its processor leaves images in sizes of their own, such as {sizes[0][0]} × {sizes[0][1]} pixels",
                where=f"source `{self.recipe.where}`",
                fix="use a model whose `preprocessor_config.json` brings them to one size",
            )
        return ImageBatch(torch.from_numpy(np.stack(pixels)))

    def forward_features(self, batch: Batch) -> torch.Tensor:
        return self.forward_taps(batch, [self.recipe])[0]

    def forward_taps(self, batch: Batch, recipes: Sequence[Recipe]) -> list[torch.Tensor]:
        """Features by each of these recipes of the same model, from one pass."""
        assert isinstance(batch, ImageBatch)  # made by our collate
        weight = next(self.module.parameters())
        deep = {"output_hidden_states": True} if any(r.layer is not None for r in recipes) else {}
        out = self.module(pixel_values=batch.pixels.to(weight.dtype), return_dict=True, **deep)
        found = []
        for recipe in recipes:
            mode = recipe.pooling[0]
            if recipe.layer is not None:
                pooled = _pool(out.hidden_states[recipe.layer], mode, before=recipe.tokens_before)
            else:
                pooled = out.last_hidden_state[:, 0] if mode == "cls" else out.pooler_output.flatten(1)
            found.append(finish(self.module, recipe.after, pooled))
        return found

    def _processed(self, inputs: pa.Table, rows: Sequence[int]) -> Sequence[Array]:
        if not rows:
            return ()
        column = inputs["image"]
        images = in_parallel(_pixels, [column[r].as_py() for r in rows])
        made = self.processor(images=images, input_data_format="channels_last")
        return [np.asarray(one, dtype=np.float32) for one in made["pixel_values"]]


def _pool(hidden: torch.Tensor, mode: str, *, before: int) -> torch.Tensor:
    """(rows, width) from tokens (rows, tokens, width) or a map (rows, width, height, width of the map).

    before: tokens before those of the patches, the first of which stands for the image; the mean and the largest are of
    the patches.
    """
    tokens = hidden if hidden.ndim == 3 else hidden.flatten(2).transpose(1, 2)
    if mode == "cls":
        return tokens[:, 0]
    parts = tokens[:, before:]
    return parts.mean(dim=1) if mode == "mean" else parts.max(dim=1).values


def _pixels(image: Mapping[str, Any]) -> Array:
    return np.asarray(decode(image), dtype=np.uint8)


def processor_of(recipe: Recipe) -> Any:
    """The model's own image processor, computed by PIL: torchvision may be installed and broken, or not at all."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(
            recipe.model, local_files_only=True, trust_remote_code=False, backend="pil"
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise unreadable(error, recipe.where) from error


def _patches(processor: Any, recipe: Recipe) -> int:
    size = dict(getattr(processor, "crop_size", None) or getattr(processor, "size", None) or {})
    side = recipe.config.get("image_size")
    side = side if isinstance(side, int) else 224
    height = int(size.get("height") or size.get("shortest_edge") or side)
    width = int(size.get("width") or size.get("shortest_edge") or side)
    cell = recipe.config.get("patch_size")
    cell = cell if isinstance(cell, int) and cell > 0 else CELL
    return max(height // cell, 1) * max(width // cell, 1)
