"""Sources with their tensors in memory: features in sorted batches, predictions of a stored head, a copy to train."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from headstart.core import Refused, Source, Unreadable
from headstart.numerics.ragged import places, starts_of

from .backends import EXPORTED, Dtype, lowered
from .image_encoder import KEPT_BYTES, ImageEncoder
from .member_files import Member
from .recipes import Recipe
from .sources import recipe_of
from .text_encoder import TextEncoder

Array = np.ndarray[Any, Any]
Loaded = TextEncoder | ImageEncoder
BATCH_TOKENS = 2048  # the most padded tokens (or patches) of one batch; more are no faster (benchmarks/features.py)
BATCH_COST = 128  # what a batch costs beside its tokens, in tokens
BACKEND_VERSION = 3


class OpenedSource:
    """One source with its tensors in memory; made by `sources.opened`.

    Features do not depend on the order of the rows: batches are made from the rows sorted by length and content.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.recipe, self.member = recipe_of(source)
        self._loaded: dict[str, Loaded] = {}

    def backend(self, dtype: Dtype = "float32") -> str:
        """Names what computes the features, for cache keys and receipts."""
        pixels = "+pil" if self.recipe.modality == "image" else ""
        maker = "" if dtype in EXPORTED else "torch-"
        return f"{maker}{dtype}{pixels}-{BACKEND_VERSION}"

    def exports(self) -> tuple[Dtype, ...]:
        """The arithmetic of ONNX Runtime that can be tried: none without the extra `onnx`, of images, nor of BigBird,
        whose attention is another for long texts than for those that an export is traced with."""
        from .exports import installed

        able = self.recipe.modality == "text" and self.recipe.model_type != "big_bird"
        return EXPORTED if able and installed() else ()

    def is_exported(self) -> bool:
        """Whether the export of this source lies in the cache, so that trying it costs little."""
        from .exports import is_kept

        return is_kept(self._export_key(), int8=False)

    def features(
        self,
        inputs: pa.Table,
        *,
        dtype: Dtype = "float32",
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Array:
        """(rows, width) float32, in the order of the rows; of lists of words (words, width), row after row, NaN for a
        word that the encoder does not see, since it is cut off or its tokenizer knows none of its characters.

        dtype: of the arithmetic; `float32` equals the model's own library to 1e-5; `bfloat16` and `int8` are faster
        where the processor has them, `onnx` and `onnx-int8` where the encoder can be exported (`Refused` where not).
        All should be probed first, by `fidelity` or by scores. progress: called with (rows done, rows).
        """
        return self.tapped(inputs, [self.source], dtype=dtype, threads=threads, progress=progress)[0]

    def tapped(
        self,
        inputs: pa.Table,
        taps: Sequence[Source],
        *,
        dtype: Dtype = "float32",
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Array]:
        """Features by several layers and poolings of this source (see `layers.taps`), from one pass over the rows."""
        recipes = [self.recipe if tap.identity == self.source.identity else recipe_of(tap)[0] for tap in taps]
        found = features_of(self.loaded(dtype), inputs, recipes, threads=threads, progress=progress)
        self._check_numbers(found, words="tokens" in inputs.column_names)
        return found

    def _check_numbers(self, found: Sequence[Array], *, words: bool, what: str = "features") -> None:
        """Raises `Unreadable` for what is no number; but words that are not seen have none."""
        for table in found:
            bare = ~np.isfinite(table).any(axis=1)
            spoilt = ~np.isfinite(table).all(axis=1) & ~(bare & (words and not bare.all()))
            if spoilt.any():
                raise Unreadable(
                    f"its {what} are not finite numbers on {int(spoilt.sum()):,} of {len(table):,} "
                    f"{'words' if words else 'rows'}",
                    where=f"source `{self.source.where}`",
                    fix="its weights are damaged or overflow: copy it again from its origin, or leave it out",
                )

    def loaded(self, dtype: Dtype = "float32") -> Loaded:
        """What computes the features; in memory from here on, until `close`."""
        if dtype not in self._loaded:
            encoder = load(self.recipe, self.member)
            encoder.module = self._exported(encoder, dtype) if dtype in EXPORTED else lowered(encoder.module, dtype)
            self._loaded[dtype] = encoder
        return self._loaded[dtype]

    def fidelity(self, inputs: pa.Table, *, dtype: Dtype = "bfloat16", rows: int = 64) -> float:
        """How far a backend is from float32 on the first rows: norm of the difference over norm of centred features."""
        some = inputs.slice(0, rows)
        exact, fast = self.features(some), self.features(some, dtype=dtype)
        spread = float(np.linalg.norm(exact - exact.mean(axis=0)))
        return float(np.linalg.norm(exact - fast)) / max(spread, 1e-12)

    def predictions(self, inputs: pa.Table, *, threads: int | None = None) -> Array:
        """(rows, outputs) float64 in the label space of the stored head, `source.facts["labels"]`; of lists of words
        (words, outputs), row after row, by the head of a tagger, NaN for a word that it does not see."""
        self._check_head(inputs)
        if self.member is not None:
            from .members import predicted

            said = predicted(self.member, self.features(inputs, threads=threads))
        else:
            from .stored_heads import predictions

            with capped(threads):
                said = predictions(self.recipe, inputs)
        self._check_numbers([said], words="tokens" in inputs.column_names, what="predictions")
        return said

    def _check_head(self, inputs: pa.Table) -> None:
        """Raises `Refused` where there is no head, one of numbers, or one of words for whole rows, or the other way."""
        of_words, head = "tokens" in inputs.column_names, self.member or self.recipe.head
        if head is None and self.recipe.word_head is None:
            fit = "fit one on its features: headstart adapt DATA --method linear_probe"
            raise Refused(
                f"`{self.source.name}` has no head of its own, so it predicts nothing yet",
                where=f"source `{self.source.where}`",
                fix="use methods that read its features, or a tagger" if of_words else fit,
            )
        if of_words == (head is not None):
            told, given = ("whole rows", "lists of words") if of_words else ("a tag for each word", "whole rows")
            raise Refused(
                f"the head of `{self.source.name}` predicts {told}, and these are {given}",
                where=f"source `{self.source.where}`",
                fix=f"use methods that read its features, or a {'tagger' if of_words else 'classifier'}",
            )
        if head is not None and head.link == "identity":
            raise Refused(
                f"the head of `{self.source.name}` tells numbers, which are no probabilities of classes",
                where=f"source `{self.source.where}`",
                fix="use methods that read its features, or a classifier",
            )

    def encoder(self) -> Loaded:
        """A fresh copy to train: float32, in eval mode until the caller changes that."""
        encoder = load(self.recipe, self.member)
        encoder.fingerprint = self.source.weights
        if isinstance(encoder, ImageEncoder):
            encoder.kept_bytes = KEPT_BYTES
        return encoder

    def release(self, dtype: Dtype) -> None:
        """Let go of the encoder in this arithmetic; it is loaded again where it is asked for."""
        self._loaded.pop(dtype, None)

    def close(self) -> None:
        self._loaded.clear()

    def _exported(self, encoder: Loaded, dtype: Dtype) -> torch.nn.Module:
        from .exports import exported

        if dtype not in self.exports() or not isinstance(encoder, TextEncoder):
            raise Refused(
                f"features in `{dtype}` are of text encoders but BigBird, and need the package onnxruntime",
                where=f"source `{self.source.name}`",
                fix="pip install 'headstart[onnx]'",
            )
        example = encoder.collate(pa.table({"text": ["a a a a a a", "a a"]}), [0, 1]).tensors
        return exported(encoder.module, example, self._export_key(), int8=dtype == "onnx-int8")

    def _export_key(self) -> str:
        """Layers and poolings share the export of the source that they are of."""
        from .exports import key_of

        tap = self.source.facts.get("tap")
        return key_of(str(tap["of"]) if tap else self.source.identity)


def load(recipe: Recipe, member: Member | None = None) -> Loaded:
    """The encoder of a recipe, with the member's adapter merged where it has one."""
    with quiet():
        encoder = TextEncoder.load(recipe) if recipe.modality == "text" else ImageEncoder.load(recipe)
        if member is not None and member.adapter is not None:
            from .adapters import merged

            merged(encoder.module, member.adapter.parent)
    if encoder.width != recipe.width:
        raise Unreadable(
            f"the model gives {encoder.width} features, and its configuration says {recipe.width}",
            where=f"source `{recipe.where}`",
            fix="copy the folder again from its origin",
        )
    return encoder


def features(
    encoder: Loaded,
    inputs: pa.Table,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """(rows, width) float32 in the order of the rows, from an encoder that is put in eval mode."""
    return features_of(encoder, inputs, [encoder.recipe], threads=threads, progress=progress)[0]


def features_of(
    encoder: Loaded,
    inputs: pa.Table,
    recipes: Sequence[Recipe],
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Array]:
    """As `features`, by several recipes of the encoder's model at once."""
    encoder.module.eval()
    words = [len(one) for one in inputs["tokens"].to_pylist()] if "tokens" in inputs.column_names else None
    starts = starts_of(np.ones(inputs.num_rows) if words is None else words)
    found: list[Array] = []
    done = 0
    with capped(threads), torch.inference_mode():
        for rows in batches(encoder.keys(inputs)):
            told = encoder.forward_taps(encoder.collate(inputs, rows), recipes)
            found = found or [np.full((starts[-1], one.shape[1]), np.nan, dtype=np.float32) for one in told]
            for out, one in zip(found, told, strict=True):
                out[places(starts, rows)] = one.float().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, inputs.num_rows)
    return found or [np.zeros((0, r.width), dtype=np.float32) for r in recipes]


def batches(keys: Sequence[tuple[int, bytes]], most: int = BATCH_TOKENS, each: int = BATCH_COST) -> list[list[int]]:
    """Rows in batches, longest first: a function of lengths and contents alone.

    Of all cuts of the sorted rows whose batches hold at most `most` padded tokens, or one row, the one with the fewest
    padded tokens, where every batch counts as `each` tokens more. By dynamic programming over the end of a batch.

    >>> batches([(2, b"b"), (5, b""), (2, b"a")], most=4, each=1)
    [[1], [2, 0]]
    """
    order = sorted(range(len(keys)), key=lambda i: (-keys[i][0], keys[i][1]))
    widths = np.array([max(keys[i][0], 1) for i in order], dtype=np.int64)
    places = np.arange(len(order) + 1)
    least = np.zeros(len(order) + 1, dtype=np.int64)  # cost of the first rows, best cut
    begins = np.zeros(len(order) + 1, dtype=np.int64)  # where the last of their batches begins
    low = 0
    for end in range(1, len(order) + 1):
        while low < end - 1 and widths[low] * (end - low) > most:
            low += 1
        costs = least[low:end] + widths[low:end] * (end - places[low:end])
        begins[end] = low + int(costs.argmin())
        least[end] = costs.min() + each
    found: list[list[int]] = []
    end = len(order)
    while end:
        found.append(order[begins[end] : end])
        end = int(begins[end])
    return found[::-1]


@contextlib.contextmanager
def capped(threads: int | None) -> Iterator[None]:
    """All thread pools of the process at one number together: torch, BLAS and OpenMP, and the tokenizers."""
    if threads is None:
        yield
        return
    before, parallel = torch.get_num_threads(), os.environ.get("TOKENIZERS_PARALLELISM")
    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if threads == 1 else "true"
    try:
        with threadpool_limits(limits=threads):
            yield
    finally:
        torch.set_num_threads(before)
        if parallel is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallel


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and notes of transformers, which are for people who call it themselves, or for peft."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
