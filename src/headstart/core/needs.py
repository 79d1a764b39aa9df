"""What a source gives, and what a method needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Gives = Literal["predictions", "word_predictions", "features", "gradients", "weights", "data"]
TaskType = Literal["single_label", "multi_label", "regression", "tagging"]
Modality = Literal["text", "image", "table"]

GIVES: tuple[str, ...] = get_args(Gives)
TASK_TYPES: tuple[str, ...] = get_args(TaskType)
MODALITIES: tuple[str, ...] = get_args(Modality)


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What must be there before a method may run.

    gives: what the source must give; empty for methods that use no source. Of a `tagging` target, `predictions` are
    those of each word, which a source gives as `word_predictions`.
    tasks, modalities, pairs: the targets that the method can work on; pairs says whether inputs may be text pairs.
    Of a `tagging` target, estimators and probes see the words, as rows of one class each (`execution.words`).
    labels: whether labelled rows of the target are read.
    reference: whether out-of-fold predictions of a system without transfer are read, on the same rows.
    probe: whether features are read through the out-of-fold predictions of a cross-validated linear probe, and only so.
    own_rows: whether rows that the source learned from are read where they are at hand: where data sets were given.
    same_base: all sources derive from one base, which must be there. whole_tensors: tensors cannot be cut into tiles.
    whole_rows: tiles are (rows, entries), cut between what lies along the last axis; a vector is one row.
    fewest, most: how many models a merge takes, without the base; None is any number.
    copies: tensors of the size of what it is given that a merge holds beside its inputs, at its peak. Where these
    depend on the shape, the method tells them itself: `holds(shape, models)`.
    extras: packages outside the plain install, as (module, extra) pairs.
    """

    gives: tuple[str, ...] = ()
    tasks: tuple[str, ...] = TASK_TYPES
    modalities: tuple[str, ...] = MODALITIES
    pairs: bool = True
    labels: bool = True
    reference: bool = False
    probe: bool = False
    own_rows: bool = False
    same_base: bool = False
    whole_tensors: bool = False
    whole_rows: bool = False
    fewest: int = 1
    most: int | None = None
    copies: int = 8
    extras: tuple[tuple[str, str], ...] = ()
