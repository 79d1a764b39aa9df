"""Signatures of targets: fixed vectors, made without a model, by which alike targets are found.

A signature has blocks of counts, shares or moments, square-rooted with their sign kept: what rows hold, sizes, how rows
spread in a space made without a model (shares of character n-grams, grey cells and edges, or columns), how classes lie
to each other there, and the n-grams of the classes' names. A block of zeros is absent: words with tags have no classes
of rows, and names that are numbers say nothing.

Two signatures are compared block by block: centred and scaled by a reference table of many data sets, then the mean of
the cosines of the blocks that both have, by the squares of their weights. Without the centring all cosines are near
one: plain counts call 43 % of all pairs alike.

Each version begins with the blocks of the one before, so that two of different versions are compared by the shorter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from headstart.core import Raw, Unfit

from .hashing import content_text
from .row_geometry import CLASSES, SPREAD, lie_of_classes, spread

Array = np.ndarray[Any, Any]

SIGNATURE_VERSION = 2
ROWS = 2000  # rows that are looked at, evenly spaced
CHARACTERS = 1000  # of a text
GRAMS = (1, 2, 3)  # characters in a row
SLOTS = 512  # that the character n-grams are hashed to
SIDE = 32  # of an image, in pixels
GRID = 8  # grey cells along a side
CELLS, ANGLES = 4, 8  # gradient histogram: cells along a side, orientations
SIZES = 3
COMMONEST = 32  # values of a column of categories that count one by one
NEAR_QUANTILE = 0.9
CONTENT: Mapping[str, tuple[int, ...]] = {
    "text": (SLOTS,),
    "image": (GRID * GRID, CELLS * CELLS * ANGLES),
    "table": (8, 20),
}
BLOCKS = {modality: (*content, SIZES, SPREAD, CLASSES, SLOTS) for modality, content in CONTENT.items()}
SIZES_WEIGHT, SPREAD_WEIGHT, CLASSES_WEIGHT, NAMES_WEIGHT = 0.1, 0.1, 0.2, 0.4
WEIGHTS = {
    modality: (*(1.0 for _ in content), SIZES_WEIGHT, SPREAD_WEIGHT, CLASSES_WEIGHT, NAMES_WEIGHT)
    for modality, content in CONTENT.items()
}


@dataclass(frozen=True, eq=False, slots=True)
class Reference:
    """Mean and scale of each entry over the reference data sets, and the similarity above which a pair is near.

    widths, weights: of the blocks.
    """

    mean: Array
    scale: Array
    near: float
    widths: tuple[int, ...]
    weights: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "blocks": list(self.widths),
            "weights": list(self.weights),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "near": self.near,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Reference:
        return cls(
            np.asarray(fields["mean"]),
            np.asarray(fields["scale"]),
            float(fields["near"]),
            tuple(fields["blocks"]),
            tuple(fields["weights"]),
        )


def signature(raw: Raw, labels: Array | None, task_type: str, modality: str, classes: Sequence[str] = ()) -> Array:
    """(sum of the modality's blocks,) float64. classes: their names.

    Cost: one pass over at most 2,000 rows, and a spectrum of the smaller of rows and 512. Raises `Unfit` for a modality
    without a signature.
    """
    chosen = np.unique(np.linspace(0, max(len(raw) - 1, 0), min(len(raw), ROWS)).astype(int))
    rows, content = embedded(raw, labels, task_type, modality, chosen)
    lie = np.zeros(CLASSES)
    if labels is not None and task_type != "tagging":
        lie = lie_of_classes(rows, np.asarray(labels)[chosen], task_type)
    words = [name for name in classes if sum(c.isalpha() for c in name) > 1]
    blocks = [*content, _sizes(len(raw), labels, task_type), spread(rows), lie, _grams(_gram_counts(words))]
    return np.concatenate([signed_root(np.nan_to_num(block)) for block in blocks])


def embedded(
    raw: Raw, labels: Array | None, task_type: str, modality: str, chosen: Array
) -> tuple[Array, tuple[Array, ...]]:
    """The chosen rows in a space without a model (N, D), and the blocks that tell what they hold together.

    Texts and edges are square roots of shares, so that a row has norm 1; columns are standardised.
    """
    if modality == "text":
        texts = raw.texts
        counts = _gram_counts([texts[i] for i in chosen])
        return np.sqrt(_shares(counts)), (_grams(counts),)
    if modality == "image":
        return _picture(raw.images(SIDE)[chosen])
    if modality == "table":
        return _standardised(raw, chosen), _columns(raw, labels, task_type, chosen)
    raise Unfit(
        f"targets of the modality `{modality}` have no signature",
        where="the signature of the target",
        fix=f"use one of: {', '.join(BLOCKS)}",
    )


def signed_root(values: Array) -> Array:
    """Square root of the size, sign kept.

    >>> signed_root(np.array([-4.0, 9.0])).tolist()
    [-2.0, 3.0]
    """
    return np.asarray(np.sign(values) * np.sqrt(np.abs(values)), dtype=np.float64)


def reference_of(signatures: Sequence[Array], modality: str) -> Reference:
    """The table that many data sets' signatures make.

    >>> rng = np.random.default_rng(0)
    >>> some = [rng.normal(size=sum(BLOCKS["table"])) for _ in range(20)]
    >>> table = reference_of(some, "table")
    >>> pairs = [near(a, b, table) for i, a in enumerate(some) for b in some[:i]]
    >>> round(sum(pairs) / len(pairs), 2)
    0.1
    """
    widths, weights = BLOCKS[modality], WEIGHTS[modality]
    mean, scale = np.zeros(sum(widths)), np.ones(sum(widths))
    for entries in _slices(widths):
        here = np.stack([one[entries] for one in signatures if one[entries].any()])  # absent blocks are of no kind
        mean[entries], scale[entries] = here.mean(axis=0), here.std(axis=0)
    found = Reference(mean, np.where(scale > 1e-9, scale, 1.0), 0.0, widths, weights)  # a constant entry says nothing
    pairs = [similarity(one, other, found) for one, other in combinations(signatures, 2)]
    return replace(found, near=float(np.quantile(pairs, NEAR_QUANTILE)))


def similarity(a: Array, b: Array, reference: Reference) -> float:
    """In [-1, 1], of two signatures of one modality: the mean of the cosines of the blocks that both have.

    >>> table = Reference(np.zeros(4), np.ones(4), 0.5, (2, 2), (1.0, 0.5))
    >>> a, b = np.array([1.0, 0.0, 0.0, 2.0]), np.array([1.0, 0.0, 2.0, 0.0])
    >>> similarity(a, a, table), similarity(a, -a, table), similarity(a, b, table)
    (1.0, -1.0, 0.8)
    """
    total, most = 0.0, 0.0
    for entries, weight in zip(_slices(reference.widths), reference.weights, strict=True):
        if a[entries].any() and b[entries].any():
            one, other = ((x[entries] - reference.mean[entries]) / reference.scale[entries] for x in (a, b))
            lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
            total += weight**2 * float(one @ other) / max(lengths, 1e-12)
            most += weight**2
    return float(np.clip(total / most, -1.0, 1.0)) if most else 0.0


def near(a: Array, b: Array, reference: Reference) -> bool:
    """Whether two targets are more alike than nine in ten pairs of the reference."""
    return similarity(a, b, reference) > reference.near


def _slices(widths: Sequence[int]) -> list[slice]:
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]


def _gram_counts(texts: Sequence[str]) -> Array:
    """(texts, lengths, SLOTS) how often each slot occurs among the hashed character n-grams of each length."""
    counts = np.zeros((len(texts), len(GRAMS), SLOTS))
    for text, here in zip(texts, counts, strict=True):
        words = f" {content_text(text[:CHARACTERS])} "
        codes = np.frombuffer(words.encode("utf-32-le", "replace"), dtype="<u4").astype(np.uint64)
        for row, length in enumerate(GRAMS):
            if len(codes) >= length:
                here[row] = np.bincount(_slots(codes, length), minlength=SLOTS)
    return counts


def _shares(counts: Array) -> Array:
    """(…, SLOTS) from (…, lengths, SLOTS): each length with the same say."""
    return np.asarray((counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)).mean(axis=-2))


def _grams(counts: Array) -> Array:
    """(SLOTS,) share of each slot in all texts together."""
    return _shares(counts.sum(axis=0))


def _slots(codes: Array, length: int) -> Array:
    """Slot of each n-gram: a polynomial of its code points, mixed; arithmetic modulo 2^64, the same everywhere."""
    mixed = np.full(len(codes) - length + 1, length, dtype=np.uint64)
    for i in range(length):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + codes[i : len(codes) - length + 1 + i]
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.asarray((mixed ^ (mixed >> np.uint64(29))) % np.uint64(SLOTS)).astype(np.int64)


def _picture(images: Array) -> tuple[Array, tuple[Array, Array]]:
    """Images in a space of grey cells and edges; mean grey of 8 × 8 cells over them, in [0, 1]; and the share of each
    (cell, orientation) in all gradients.
    """
    grey = np.zeros((0, SIDE, SIDE)) if not len(images) else images.astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    step = SIDE // GRID
    cells = grey.reshape(-1, GRID, step, GRID, step).mean(axis=(2, 4)).reshape(-1, GRID * GRID)
    down, across = np.gradient(grey, axis=(1, 2)) if len(grey) else (grey, grey)
    angle = (np.mod(np.arctan2(down, across), np.pi) / np.pi * ANGLES).astype(int) % ANGLES
    at = np.arange(SIDE) // (SIDE // CELLS)
    cell = at[:, None] * CELLS + at[None, :]
    slot = cell[None] * ANGLES + angle
    slots = CELLS * CELLS * ANGLES
    number = slot + np.arange(len(grey))[:, None, None] * slots
    size = np.hypot(down, across)
    edges = np.bincount(number.ravel(), weights=size.ravel(), minlength=slots * len(grey)).reshape(-1, slots)
    together = edges.sum(axis=0) / max(float(edges.sum()), 1e-12)
    each = np.sqrt(edges / np.maximum(edges.sum(axis=1, keepdims=True), 1e-12))
    return np.hstack([cells / GRID, each]), (cells.sum(axis=0) / max(len(grey), 1), together)


def _standardised(raw: Raw, chosen: Array) -> Array:
    """Columns of a table, each of variance 1: numbers, and the commonest values of categories. What is unknown is 0."""
    table = raw.columns.take(chosen)
    parts = [np.zeros((len(chosen), 0))]
    for name in table.column_names:
        values = table[name].to_pylist()
        if any(isinstance(v, str) for v in values):
            told = Counter(v for v in values if isinstance(v, str))
            kept = sorted(told, key=lambda value: (-told[value], value))[:COMMONEST]
            part = np.array([[float(v == value) for value in kept] for v in values])
        else:
            part = np.array([[np.nan if v is None else float(v)] for v in values], dtype=np.float64).reshape(-1, 1)
        part = np.where(np.isfinite(part), part, np.nan)
        known = np.isfinite(part).any(axis=0)
        part = part[:, known] / np.maximum(np.nanmax(np.abs(part[:, known]), axis=0, initial=0.0), 1e-300)
        part = np.nan_to_num(part - np.nanmean(part, axis=0)) if part.size else part
        size = float(np.sqrt(np.square(part).sum() / max(len(part), 1)))
        parts.append(part / size if size > 1e-9 else part * 0)
    return np.hstack(parts)


def _columns(raw: Raw, labels: Array | None, task_type: str, chosen: Array) -> tuple[Array, Array]:
    """What kinds of columns a table has, and quantiles over its number columns of their moments."""
    table = raw.columns.take(chosen)
    picked = None if labels is None else np.asarray(labels)[chosen]
    numbers, categories, blanks = [], [], []
    for name in table.column_names:
        values = table[name].to_pylist()
        blanks.append(sum(v is None or v != v for v in values) / max(len(values), 1))
        if any(isinstance(v, str) for v in values):
            categories.append([v for v in values if isinstance(v, str)])
        else:
            numbers.append(np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64))
    kinds = [len(set(c)) / max(len(c), 1) for c in categories]
    whole = [float(np.all(np.mod(n[np.isfinite(n)], 1) == 0)) for n in numbers]
    few = [len(np.unique(n[np.isfinite(n)])) / max(len(n), 1) for n in numbers]
    width = len(table.column_names)
    about = np.array(
        [
            np.log1p(width),
            len(categories) / max(width, 1),
            _mean(blanks),
            max(blanks, default=0.0),
            _mean(kinds),
            _mean(whole),
            _mean(few),
            np.log1p(width) - np.log1p(len(chosen)),
        ]
    )
    return about, _moments(numbers, picked, task_type)


def _moments(numbers: Sequence[Array], labels: Array | None, task_type: str) -> Array:
    """(20,) low, middle and high of skewness, tail weight, zeros, spread and pull of the label; correlations."""
    skew, tails, zeros, spread, pull, kept = [], [], [], [], [], []
    for column in numbers:
        here = np.isfinite(column)
        values = column[here]
        middle, scale = (float(values.mean()), float(values.std())) if len(values) else (0.0, 0.0)
        if not np.isfinite(scale) or scale <= 1e-12 * max(abs(middle), 1e-300):
            continue
        z = (values - middle) / scale
        skew.append(float((z**3).mean()))
        tails.append(float((z**4).mean()) - 3)
        zeros.append(float((values == 0).mean()))
        spread.append(scale / (scale + abs(middle)))
        whole = np.where(here, (column - middle) / scale, 0.0)
        kept.append(whole)
        if labels is not None:
            pull.append(_pull(whole, labels, task_type))
    found = [quantile for values in (skew, tails, zeros, spread, pull) for quantile in _quantiles(values)]
    if len(kept) > 1:
        together = np.corrcoef(np.stack(kept))[np.triu_indices(len(kept), 1)]
        powers = np.linalg.eigvalsh(np.corrcoef(np.stack(kept))).clip(0)
        effective = float(powers.sum() ** 2 / max(float((powers**2).sum()), 1e-12)) / len(kept)
        return np.array([*found, *_quantiles(np.abs(together)), float(together.mean()), effective])
    return np.array([*found, 0.0, 0.0, 0.0, 0.0, 1.0])


def _pull(z: Array, labels: Array, task_type: str) -> float:
    """Share of a column's variance that lies between classes, or its squared correlation with the value."""
    if labels.ndim != 1 or task_type == "tagging":
        return 0.0
    if task_type == "regression":
        value = labels - np.nanmean(labels)
        return float(np.nansum(z * value)) ** 2 / max(float(np.sum(z * z) * np.nansum(value * value)), 1e-12)
    between = 0.0
    for label in np.unique(labels):
        inside = z[labels == label]
        between += len(inside) * float(inside.mean()) ** 2
    return between / max(float(np.sum(z * z)), 1e-12)


def _sizes(rows: int, labels: Array | None, task_type: str) -> Array:
    """Log of rows, log of classes (0 for a number), and how unequal the classes are: 1 - entropy / log classes."""
    if labels is None or task_type in ("regression", "tagging") or not len(labels):
        return np.array([np.log1p(rows), 0.0, 0.0])
    counts = labels.sum(axis=0) if labels.ndim == 2 else np.unique(labels, return_counts=True)[1]
    shares = counts[counts > 0] / max(float(counts.sum()), 1e-12)
    classes = len(counts)
    evenness = -float(np.sum(shares * np.log(shares))) / np.log(classes) if classes > 1 else 1.0
    return np.array([np.log1p(rows), np.log(max(classes, 1)), max(1.0 - evenness, 0.0)])


def _quantiles(values: Sequence[float] | Array) -> list[float]:
    return [float(q) for q in np.quantile(values, [0.1, 0.5, 0.9])] if len(values) else [0.0, 0.0, 0.0]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
